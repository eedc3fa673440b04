"""The pictures that somebody named: found in folders, and decoded."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onecycle.datasets import decode
from onecycle.datasets.folder import MEMBER_LIMIT
from onecycle.datasets.layout import is_image
from onecycle.datasets.source import Pixels
from onecycle.errors import RecipeError

Given = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Single = Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A picture's name, empty if it has none, and its pixels (S, S, 3) or why it can't be used."""

    name: str
    pixels: Pixels | str


def singles(given: Iterable[Given]) -> Iterator[Single]:
    """Every picture in `given` in turn, not decoded.

    Folders give the images in them and below, sorted by name, without hidden ones. Arrays are
    (H, W, 3) or (N, H, W, 3) uint8. Raises RecipeError for anything else.
    """
    for each in given:
        yield from _single(each)


def decoded(one: Single, size: int) -> Picture:
    """A picture at `size` pixels by the rules of training data.

    Raises DataError for an open image that can't be used.
    """
    if isinstance(one, np.ndarray):
        one = Image.fromarray(one)
    if isinstance(one, Image.Image):
        return Picture("", decode.square(one, size))
    try:
        content = _content(one)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        return Picture(str(one), reason)
    return Picture(str(one), decode.look(content, size).pixels)


def _single(given: Given) -> Iterator[Single]:
    """The pictures of which `given` consists."""
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (3, 4) or given.shape[-1] != 3:
            raise RecipeError(
                f"an array of {given.dtype} {given.shape}: give uint8 (H, W, 3) or (N, H, W, 3)"
            )
        yield from given if given.ndim == 4 else [given]
    elif isinstance(given, Image.Image):
        yield given
    elif isinstance(given, str | os.PathLike):
        yield from _walk(Path(given)) if _is_folder(given) else [Path(given)]
    else:
        raise RecipeError(f"a {type(given).__name__}: give paths, PIL images or uint8 arrays")


def _walk(folder: Path) -> Iterator[Path]:
    """The image files below `folder`; one that can't be listed comes in the place of its files."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name)
        elif is_image(entry.name) and not _is_folder(entry.path):
            yield folder / entry.name


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises where it may not look)


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        content = file.read(MEMBER_LIMIT + 1)
    if len(content) > MEMBER_LIMIT:
        raise ValueError(f"over the limit of {MEMBER_LIMIT:,} bytes")
    return content
