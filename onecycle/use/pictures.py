"""The pictures that somebody named: found in folders, and decoded ahead by a few threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onecycle.datasets import decode
from onecycle.datasets.folder import MEMBER_LIMIT
from onecycle.datasets.layout import is_image
from onecycle.datasets.source import Pixels
from onecycle.errors import RecipeError
from onecycle.machine import usable_cores

Given = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Single = Path | Image.Image | NDArray[np.uint8]

TOGETHER = 32  # pictures that a thread decodes in one go
MOST_THREADS = 8


@dataclass(frozen=True)
class Picture:
    """A picture's name, empty if it has none, and its pixels (S, S, 3) or why it can't be used."""

    name: str
    pixels: Pixels | str


def decoded(given: Iterable[Given], size: int) -> Iterator[Picture]:
    """Every picture in `given` in turn, at `size` pixels by the rules of training data.

    Folders give the images in them and below, sorted by name, without hidden ones. Arrays are
    (H, W, 3) or (N, H, W, 3) uint8. Memory is bounded. Raises RecipeError for anything else, and
    DataError for an open image that can't be used.
    """
    rest = (one for each in given for one in _single(each))
    workers = min(MOST_THREADS, usable_cores())
    pending: deque[Future[list[Picture]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while task := list(islice(rest, TOGETHER)):
            pending.append(pool.submit(_decoded, task, size))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


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


def _decoded(task: list[Single], size: int) -> list[Picture]:
    return [_picture(one, size) for one in task]


def _picture(one: Single, size: int) -> Picture:
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


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ValueError("not a regular file")
    with open(path, "rb") as file:
        content = file.read(MEMBER_LIMIT + 1)
    if len(content) > MEMBER_LIMIT:
        raise ValueError(f"over the limit of {MEMBER_LIMIT:,} bytes")
    return content
