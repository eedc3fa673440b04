"""Image files to pixels: decoded ahead by a few threads, in bounded memory."""

import io
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from onecycle.datasets import source
from onecycle.datasets.folder import Member, members
from onecycle.datasets.source import Contents, Pixels, Reader
from onecycle.errors import DataError, one_line

PIXEL_LIMIT = 50_000_000  # of one image: more is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # none that runs a program
DEEP_MODES = ("I", "F")  # first letters of the modes that 8 bits can't hold
TASK_IMAGES = 256  # at most, decoded by one task
TASK_BYTES = 4 * 2**20  # files and pixels of one task, if it is more than one image


def images(path: Path) -> Reader:
    """Every image at `path` in turn; classes in the order of their names. Raises as `decoded`."""
    classes: set[str] = set()
    with closing(decoded(path)) as found:
        for member, pixels in found:
            if member.split == "train":
                classes.add(member.class_name)
            yield source.Image(member.split, member.class_name, member.name, pixels)
    yield Contents({name: name for name in sorted(classes)})


def decoded(path: Path) -> Generator[tuple[Member, Pixels | str]]:
    """Every image at `path` in turn, decoded ahead by a few threads in bounded memory.

    Either its pixels, (H, H, 3) uint8 with one H for all, or why it can't be used. Raises
    DataError for an image of another size.
    """
    workers = min(8, os.cpu_count() or 1)
    with closing(members(path)) as found, ThreadPoolExecutor(workers) as pool:
        for first in found:
            try:
                size = _opened(first.content).size
                break
            except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
                yield first, _reason(error)
        else:
            return
        if size[0] != size[1]:
            raise DataError(f"{path}: {first.name} is {_by(size)}: images must be square")
        pending: deque[tuple[list[Member], Future[list[Pixels | str]]]] = deque()
        for task in _tasks(chain([first], found), 3 * size[0] * size[1]):
            pending.append((task, pool.submit(_decode, path, task, first.name, size)))
            if len(pending) > 2 * workers:
                oldest, future = pending.popleft()
                yield from zip(oldest, future.result(), strict=True)
        for task, future in pending:
            yield from zip(task, future.result(), strict=True)


def _tasks(found: Iterable[Member], image_bytes: int) -> Iterator[list[Member]]:
    """`found` in lists that are small in number and in bytes, packed and decoded."""
    task: list[Member] = []
    size = 0
    for member in found:
        task.append(member)
        size += len(member.content) + image_bytes
        if len(task) == TASK_IMAGES or size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task


def _decode(
    path: Path, task: list[Member], first: str, size: tuple[int, int]
) -> list[Pixels | str]:
    """The pixels of each image, or why not. DataError for one that is not of `first`'s size."""
    results: list[Pixels | str] = []
    for member in task:
        try:
            image = _opened(member.content)
            if image.size != size:
                raise DataError(
                    f"{path}: {first} is {_by(size)} and {member.name} is {_by(image.size)}: "
                    "all images must have one size"
                )
            pixels = np.frombuffer(image.convert("RGB").tobytes(), np.uint8)
            results.append(pixels.reshape(size[1], size[0], 3))
        except DataError:
            raise
        except Exception as error:  # as above
            results.append(_reason(error))
    return results


def _opened(content: bytes) -> Image.Image:
    """The image, of which only the header is read yet; any Exception if it can't be used."""
    if not content:
        raise ValueError("empty file")
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > PIXEL_LIMIT:
        raise ValueError(f"{_by(image.size)}, over the limit of {PIXEL_LIMIT:,} pixels")
    if image.mode.startswith(DEEP_MODES):
        raise ValueError("more than 8 bits a channel")
    return image


def _reason(error: Exception) -> str:
    return "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
