"""Every image of a folder or archive in turn, all at one size: decoded ahead by a few threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

from onecycle.datasets.decode import LARGEST, Found, common_size, fit, look
from onecycle.datasets.folder import Pictures, Placed, pictures
from onecycle.datasets.layout import Place
from onecycle.datasets.source import Again, Contents, Image, Reader
from onecycle.machine import usable_cores

MOST_THREADS = 16  # Pillow lets go of Python's lock while it decodes
TASK_BYTES = 4 * 2**20  # files and pixels of one task, if it is more than one image


def read(path: Path, size: int | None = None) -> Reader:
    """Every image at `path` in turn, at `size`; classes in the order of their names.

    Without `size` they come as they are until one has another size; then the sizes of all are
    read, and all come again. Memory is bounded. Raises as `pictures` does.
    """
    found = pictures(path)
    notes = found.layout.notes
    if size is None:
        sides = yield from _as_they_are(found)
        if sides:
            size = common_size(sides)
            notes += (_size_note(sides, size),)
            yield Again()
    if size:
        for place, seen in _ahead(found, partial(look, size=size)):
            yield Image(place.part, place.class_name, place.name, seen.pixels)
    classes: dict[str | int, str] = {name: name for name in found.layout.classes}
    yield Contents(classes, drawn=found.layout.drawn, notes=notes)


def _size_note(sides: list[int], size: int) -> str:
    """Why images whose shorter sides have `sides` pixels come at `size`."""
    if min(sides) == max(sides):
        found = f"{sides[0]:,} pixels"
    else:
        found = f"{min(sides):,} to {max(sides):,} pixels, the median {median(sides):,g}"
    return f"images of {size} pixels, made of shorter sides of {found}; --image-size sets another"


def _as_they_are(pictures: Pictures) -> Generator[Image, None, list[int]]:
    """The images as long as they are fit and of one size; if not all are, the shorter sides."""
    sides: list[int] = []
    first: tuple[int, int] | None = None
    differ = False

    def work(content: bytes) -> Found:
        return look(content, header_only=differ)

    for place, found in _ahead(pictures, work):
        if found.size:
            sides.append(min(found.size))
        if differ:
            continue
        if not isinstance(found.pixels, str) and found.size:
            first = first or found.size
            differ = found.size != first or not fit(first)
        if not differ:
            yield Image(place.part, place.class_name, place.name, found.pixels)
    return sides if differ else []


def _ahead(pictures: Pictures, work: Callable[[bytes], Found]) -> Generator[tuple[Place, Found]]:
    """Every image file of `pictures` and what `work` finds in it."""
    workers = min(MOST_THREADS, usable_cores())
    pending: deque[tuple[list[Placed], Future[list[Found]]]] = deque()
    with closing(pictures.read()) as found, ThreadPoolExecutor(workers) as pool:
        for task in _tasks(found):
            pending.append((task, pool.submit(_done, work, task)))
            if len(pending) > 2 * workers:
                yield from _next(pending)
        while pending:
            yield from _next(pending)


def _next(
    pending: "deque[tuple[list[Placed], Future[list[Found]]]]",
) -> Iterator[tuple[Place, Found]]:
    task, future = pending.popleft()
    return zip((place for place, _ in task), future.result(), strict=True)


def _done(work: Callable[[bytes], Found], task: list[Placed]) -> list[Found]:
    return [work(content) for _, content in task]


def _tasks(found: Iterable[Placed]) -> Iterator[list[Placed]]:
    """`found` in lists of few bytes, packed and decoded."""
    task: list[Placed] = []
    size = 0
    for placed in found:
        task.append(placed)
        size += len(placed[1]) + 3 * LARGEST**2
        if size >= TASK_BYTES:
            yield task
            task, size = [], 0
    if task:
        yield task
