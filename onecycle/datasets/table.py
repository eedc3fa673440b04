"""Pictures listed in a CSV file with the columns `path`, `label` and perhaps `split`.

Paths are relative to the folder of the CSV file and stay inside of it. A row's split is one of
`layout.PARTS`. Without that column, or without rows of a test part, there is one as in `layout`.
"""

import csv
import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from onecycle.datasets.layout import (
    PARTS,
    UNPRINTABLE,
    Layout,
    Place,
    complete,
    is_image,
    part_of,
)
from onecycle.datasets.source import File
from onecycle.errors import DataError, did_you_mean, one_line
from onecycle.files import disk_errors

TABLE_LIMIT = 2**28  # bytes of a CSV file
COLUMNS = (["path", "label"], ["path", "label", "split"])


def is_table(path: Path) -> bool:
    """Whether `path` is a file named like a CSV."""
    with disk_errors(path, "read"):
        return path.suffix.lower() == ".csv" and path.is_file()


def read(path: Path) -> tuple[Layout, dict[str, File]]:
    """The layout and the image files of the CSV file at `path`, by their paths in it.

    Raises DataError naming the first row that can't be used.
    """
    with disk_errors(path, "read"):
        if path.stat().st_size > TABLE_LIMIT:
            raise DataError(f"{path}: over the limit of {TABLE_LIMIT:,} bytes: make it smaller")
        real = cache(os.path.realpath)
        root = real(path.parent)
        places: dict[str, Place] = {}
        files: dict[str, File] = {}
        rows: dict[str, int] = {}
        for number, row in _rows(path):
            try:
                place = _place(*row)
                if place.name in rows:
                    raise ValueError(f"{place.name} is in row {rows[place.name]} already")
                # Of a folder's many files only links are resolved one by one.
                parent, _, last = place.name.rpartition("/")
                file = os.path.join(real(os.path.join(root, parent)), last)  # noqa: PTH118
                files[place.name] = _file(root, file, place.name)
            except (ValueError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else one_line(error)
                raise DataError(f"{path}: row {number}: {row[0]!a}: {reason}") from error
            places[place.name] = place
            rows[place.name] = number
    return complete(path, places), files


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and cells of each row but the first, from 2."""
    number = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            columns = next(reader, [])
            if columns not in COLUMNS:
                raise DataError(
                    f"{path}: row 1: the columns have to be path,label or path,label,split, "
                    f"not {','.join(columns)[:80]!a}"
                )
            for number, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path}: row {number}: {len(cells)} cells, not {len(columns)} "
                        f"({','.join(columns)}): quote what has a comma in it"
                    )
                yield number, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: after row {number}: no CSV in UTF-8 ({error})") from error


def _place(path: str, label: str, split: str = "train") -> Place:
    """What a row says; ValueError if that can't be used."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0].startswith("/") or ".." in parts:
        raise ValueError("the path has to lie below the folder of the CSV file")
    if not is_image(path):
        raise ValueError("no image by its suffix")
    if not label.strip():
        raise ValueError("the label is empty")
    if UNPRINTABLE.search(path + label):
        raise ValueError("unprintable characters in its path or label")
    part = part_of(split)
    if part is None:
        raise ValueError(
            f"the split is {split!a}, none of {', '.join(PARTS)}{did_you_mean(split, PARTS)}"
        )
    return Place(part, label.strip(), "/".join(parts))


def _file(root: str, path: str, name: str) -> File:
    """The file at `path`, whose folder is resolved; ValueError if it lies outside of `root`."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        path = os.path.realpath(path)
        status = os.stat(path)  # noqa: PTH116
    if os.path.commonpath([root, path]) != root:
        raise ValueError("a link leads out of the folder of the CSV file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a file")
    return File(name, Path(path), status.st_size, status.st_mtime_ns)
