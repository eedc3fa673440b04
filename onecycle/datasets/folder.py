"""The images of a folder or an archive, file by file, with their split and class.

The last three parts of an image's path are `train` or `test`, its class, and its file name:
`train/cat/0001.jpg`, or `photos/train/cat/0001.jpg`. Hidden files, and files that are no images
by their suffix, are left out.
"""

import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onecycle.datasets.archive import ARCHIVE_SUFFIXES, damage, entries, has_archive_suffix
from onecycle.datasets.source import SPLITS, File
from onecycle.errors import DataError
from onecycle.files import disk_errors

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"),
    # Nothing reads these, but to pass over them in silence could lose a class.
    *(".heic", ".heif", ".avif", ".jp2", ".jxl"),
)
MEMBER_LIMIT = 64 * 2**20  # bytes of one image file
LAYOUT = "train/<class>/<image> and test/<class>/<image>"

# Control characters, line separators and undecodable bytes: they would break a one-line message.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Member:
    """One image file: `name` is `<split>/<class_name>/<file>`, without leading folders."""

    split: str
    class_name: str
    name: str
    content: bytes


def files(path: Path) -> list[File]:
    """The archive at `path` itself, or a folder's images sorted by name.

    Raises DataError if `path` is missing, is neither, or is a folder without the layout.
    """
    if is_archive(path):
        with disk_errors(path, "read"):
            status = path.stat()
        return [File("", path, status.st_size, status.st_mtime_ns)]
    found = sorted(_walk(path), key=lambda file: file.name)
    _check_layout(path, {tuple(file.name.split("/")[:2]) for file in found})
    return found


def members(path: Path) -> Generator[Member]:
    """The images at `path`: a folder's sorted by name, an archive's in its own order.

    Raises DataError if `path` is missing, damaged, hostile or without the layout, the last only
    at the end of an archive.
    """
    if not is_archive(path):
        for file in files(path):
            with disk_errors(file.path, "read"):
                content = file.path.read_bytes()
            split, class_name, _ = file.name.split("/")
            yield Member(split, class_name, file.name, content)
        return
    seen: set[tuple[str, ...]] = set()
    with damage(path):
        for entry, size, read in entries(path):
            name = _image_name(path, entry)
            if name is None:
                continue
            _check_size(path, name, size)
            split, class_name, _ = name.split("/")
            seen.add((split, class_name))
            yield Member(split, class_name, name, read())
    _check_layout(path, seen)


def few(items: Iterable[str], limit: int = 5) -> str:
    """The first `limit` of `items` separated by commas, and how many more there are."""
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


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
                f"({' '.join(ARCHIVE_SUFFIXES)}): give one with {LAYOUT}"
            )
    return True


def _walk(path: Path) -> Iterator[File]:
    """The images below the folder `path`, unsorted. DataError for a link that leads out of it."""
    root = os.path.realpath(path)
    folders = [root]
    while folders:
        folder = folders.pop()
        with disk_errors(Path(folder), "read"), os.scandir(folder) as entries:
            for entry in entries:
                relative = entry.path.removeprefix(root.rstrip("/") + "/")
                if entry.is_dir(follow_symlinks=False):
                    if not _hidden(entry.name):
                        folders.append(entry.path)
                    continue
                if entry.is_symlink():
                    _check_link(path, root, entry, relative)
                name = _image_name(path, relative)
                if name is None:
                    continue
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    _check_size(path, name, status.st_size)
                    yield File(name, Path(entry.path), status.st_size, status.st_mtime_ns)


def _check_link(path: Path, root: str, entry: "os.DirEntry[str]", relative: str) -> None:
    """DataError if a symbolic link in the place of an image, class or split can't be followed.

    DiskError if it leads nowhere or in a circle.
    """
    with disk_errors(Path(entry.path), "read"):
        if entry.is_dir():
            if any(part in SPLITS for part in relative.split("/")[-2:]):
                raise DataError(f"{path}: {relative} is a link to a folder: put the folder there")
        elif _image_name(path, relative):
            entry.stat()
            target = os.path.realpath(entry.path)
            if os.path.commonpath([root, target]) != root:
                raise DataError(
                    f"{path}: {relative} is a link that leads outside: put the file there"
                )


def _image_name(path: Path, entry: str) -> str | None:
    """`<split>/<class>/<file>` if `entry` is an image in the layout; DataError if it is hostile."""
    if not entry.lower().endswith(IMAGE_SUFFIXES):
        return None
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if entry.startswith("/") or ".." in parts:
        raise DataError(f"{path}: member {entry!a} leads outside of the archive: pack it anew")
    if len(parts) < 3 or parts[-3] not in SPLITS or any(_hidden(part) for part in parts):
        return None
    if UNPRINTABLE.search(entry):
        raise DataError(f"{path}: {entry!a} has unprintable characters in its name: rename it")
    return "/".join(parts[-3:])


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MEMBER_LIMIT:
        raise DataError(
            f"{path}: {name} has {size:,} bytes, over the limit of {MEMBER_LIMIT:,}: "
            "make it smaller or remove it"
        )


def _check_layout(path: Path, found: set[tuple[str, ...]]) -> None:
    """DataError unless `found`, pairs of split and class, can be trained and tested on."""
    classes = {split: {name for part, name in found if part == split} for split in SPLITS}
    for split in SPLITS:
        if not classes[split]:
            raise DataError(f"{path}: no {split}/<class>/ images found: expected {LAYOUT}")
    extra = sorted(classes["test"] - classes["train"])
    if extra:
        raise DataError(
            f"{path}: classes in test/ without images in train/: {few(extra)}: "
            "add training images or remove them"
        )
