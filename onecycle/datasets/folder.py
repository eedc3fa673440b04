"""The images of a folder, an archive or a CSV file, file by file, with their part and class."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onecycle.datasets import table
from onecycle.datasets.archive import ARCHIVE_SUFFIXES, damage, entries, has_archive_suffix
from onecycle.datasets.layout import LAYOUT, Layout, Place, by_path, is_hidden, is_image, part_of
from onecycle.datasets.source import File, Listing
from onecycle.errors import DataError
from onecycle.files import disk_errors

MEMBER_LIMIT = 64 * 2**20  # bytes of one image file


Placed = tuple[Place, bytes]  # where an image file belongs, and its content


@dataclass(frozen=True)
class Pictures:
    """Where the images of a data set belong, and a function that reads one file after another.

    It gives a folder's or table's sorted by name, an archive's in its own order.
    """

    layout: Layout
    read: Callable[[], Generator[Placed]]


def listing(path: Path) -> Listing:
    """The archive at `path` itself, or a folder's or table's images sorted by name.

    Raises DataError if `path` is missing, is none of these, or can't be trained and tested on.
    """
    if table.is_table(path):
        return Listing([_file("", path), *_sorted(_listed(path)[1])])
    if is_archive(path):
        return Listing([_file("", path)])
    layout, found = _walked(path)
    return Listing(_sorted(found), layout.notes)


def pictures(path: Path) -> Pictures:
    """The images at `path`; raises as `listing` does, and DataError for a hostile archive."""
    if not table.is_table(path) and is_archive(path):
        with damage(path):
            layout = by_path(path, _names(path))
        return Pictures(layout, partial(_packed, path, layout))
    layout, found = _listed(path) if table.is_table(path) else _walked(path)
    return Pictures(layout, partial(_loose, layout, found))


def is_archive(path: Path) -> bool:
    """Whether `path` is an archive, not a folder. DataError if it is missing or neither."""
    with disk_errors(path, "read"):
        if not path.exists():
            raise DataError(f"{path} does not exist: give a folder or archive with {LAYOUT}")
        if path.is_dir():
            return False
        if not (path.is_file() and has_archive_suffix(path)):
            raise DataError(
                f"{path} is neither a folder nor an archive that can be read "
                f"({' '.join(ARCHIVE_SUFFIXES)}) nor a .csv: give one with {LAYOUT}"
            )
    return True


def _names(path: Path) -> Iterator[str]:
    """The images in the archive at `path` by their paths in it."""
    for entry, size, _ in entries(path):
        if is_image(entry):
            _check_size(path, entry, size)
            yield entry


def _packed(path: Path, layout: Layout) -> Generator[Placed]:
    with damage(path):
        for entry, _, read in entries(path):
            if place := layout.places.get(entry):
                yield place, read()


def _loose(layout: Layout, found: Mapping[str, File]) -> Generator[Placed]:
    for entry, file in sorted(found.items(), key=lambda item: item[1].name):
        with disk_errors(file.path, "read"):
            content = file.path.read_bytes()
        yield layout.places[entry], content


def _listed(path: Path) -> tuple[Layout, dict[str, File]]:
    layout, found = table.read(path)
    for file in found.values():
        _check_size(path, file.name, file.size)
    return layout, found


def _walked(path: Path) -> tuple[Layout, dict[str, File]]:
    """The images below the folder `path`. DataError for a link that leads out of it.

    DiskError for one that leads nowhere or in a circle.
    """
    root = os.path.realpath(path)
    linked: list[str] = []
    images = {e.path[len(root.rstrip("/")) + 1 :]: e for e in _walk(root, linked)}
    layout = by_path(path, images) if images or not linked else Layout({})
    flat = all(place.name.count("/") == 1 for place in layout.places.values())
    for link in (os.path.relpath(folder, root) for folder in linked):
        if flat or any(map(part_of, link.split("/")[-2:])):
            raise DataError(f"{path}: {link} is a link to a folder: put the folder there")
    found: dict[str, File] = {}
    for relative, place in layout.places.items():
        file = Path(images[relative].path)
        if images[relative].is_symlink():
            with disk_errors(file, "read"):
                target = os.path.realpath(file, strict=True)
            if os.path.commonpath([root, target]) != root:
                raise DataError(
                    f"{path}: {relative} is a link that leads outside: put the file there"
                )
        found[relative] = _file(place.name, file)
        _check_size(path, place.name, found[relative].size)
    return layout, found


def _walk(root: str, linked: list[str]) -> Iterator["os.DirEntry[str]"]:
    """The files named like images below `root`; links to folders are added to `linked`."""
    folders = [root]
    while folders:
        folder = folders.pop()
        with disk_errors(Path(folder), "read"), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not is_hidden(entry.name):
                        folders.append(entry.path)
                elif entry.is_symlink():
                    with disk_errors(Path(entry.path), "read"):
                        to_folder = entry.is_dir()
                    if to_folder:
                        linked.append(entry.path)
                    elif is_image(entry.name):
                        yield entry
                elif is_image(entry.name) and entry.is_file():
                    yield entry


def _file(name: str, path: Path) -> File:
    with disk_errors(path, "read"):
        status = path.stat()
    return File(name, path, status.st_size, status.st_mtime_ns)


def _sorted(found: Mapping[str, File]) -> list[File]:
    return sorted(found.values(), key=lambda file: file.name)


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MEMBER_LIMIT:
        raise DataError(
            f"{path}: {name} has {size:,} bytes, over the limit of {MEMBER_LIMIT:,}: "
            "make it smaller or remove it"
        )
