"""Image folders and archives, read member by member; nothing is ever extracted to disk.

The last three parts of an image's path are `train` or `test`, its class, and its file name:
`train/cat/0001.jpg`, or `photos/train/cat/0001.jpg`. Hidden files, and files that are no images
by their suffix, are left out.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from onecycle.errors import DataError, DiskError, OnecycleError
from onecycle.files import disk_errors

SPLITS = ("train", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")
MEMBER_LIMIT = 64 * 2**20  # bytes of one image file
HEADER_LIMIT = 2**20  # bytes of all headers of one tar member
BUFFER = 2**16  # bytes read from an archive at once
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


@dataclass(frozen=True)
class File:
    """A file on disk that makes up a data set, and what tells whether it has changed."""

    name: str
    path: Path
    size: int  # bytes
    mtime_ns: int


# An archive's entry: its path, its size in bytes, and what reads it.
Entry = tuple[str, int, Callable[[], bytes]]


def files(path: Path) -> list[File]:
    """The archive at `path` itself, or a folder's images sorted by name.

    Raises DataError if `path` is missing, is neither, or is a folder without the layout.
    """
    if _is_archive(path):
        with disk_errors(path, "read"):
            status = path.stat()
        return [File(path.name, path, status.st_size, status.st_mtime_ns)]
    found = sorted(_walk(path), key=lambda file: file.name)
    _check_layout(path, {tuple(file.name.split("/")[:2]) for file in found})
    return found


def members(path: Path) -> Generator[Member]:
    """The images at `path`: a folder's sorted by name, an archive's in its own order.

    Raises DataError if `path` is missing, damaged, hostile or without the layout, the last only
    at the end of an archive.
    """
    if not _is_archive(path):
        for file in files(path):
            with disk_errors(file.path, "read"):
                content = file.path.read_bytes()
            split, class_name, _ = file.name.split("/")
            yield Member(split, class_name, file.name, content)
        return
    seen: set[tuple[str, ...]] = set()
    with _damage(path):
        entries = _zip_entries(path) if path.name.lower().endswith(".zip") else _tar_entries(path)
        for entry, size, read in entries:
            name = _image_name(path, entry)
            if name is None:
                continue
            _check_size(path, name, size)
            split, class_name, _ = name.split("/")
            seen.add((split, class_name))
            yield Member(split, class_name, name, read())
    _check_layout(path, seen)


def has_archive_suffix(path: Path) -> bool:
    """Whether `path` is named like an archive that can be read."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def few(items: Iterable[str], limit: int = 5) -> str:
    """The first `limit` of `items` separated by commas, and how many more there are."""
    listed = list(items)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def one_line(error: Exception) -> str:
    """What `error` says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_archive(path: Path) -> bool:
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
    """DataError if a symbolic link in the place of an image, class or split can't be followed."""
    if entry.is_dir():
        if any(part in SPLITS for part in relative.split("/")[-2:]):
            raise DataError(f"{path}: {relative} is a link to a folder: put the folder there")
        return
    target = os.path.realpath(entry.path)
    if _image_name(path, relative) and os.path.commonpath([root, target]) != root:
        raise DataError(f"{path}: {relative} is a link that leads outside: put the file there")


def _tar_entries(path: Path) -> Iterator[Entry]:
    with open(path, "rb") as packed, _decompressed(packed) as plain:
        stream = _Metered(plain)
        with tarfile.open(None, "r|", stream, BUFFER, tarinfo=_Header, encoding="utf-8") as archive:
            while (info := archive.next()) is not None:
                if info.issparse():
                    raise tarfile.ReadError(f"sparse member {info.name!a}")
                stream.allowance = info.size + HEADER_LIMIT
                if info.isreg():
                    yield info.name, info.size, partial(_read_tar_member, archive, info)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        # To the end, because a compressed file's checksum may stand there.
        while plain.read(BUFFER):
            pass


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the packer kept no file modes
            if not info.is_dir() and kind in (0, stat.S_IFREG):
                yield info.filename, info.file_size, partial(_read_zip_member, archive, info)


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(info)
    return content.read(info.size) if content else b""


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # zipfile bounds the memory of a read only for these two.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotImplementedError(f"{info.filename!a} is neither stored nor deflated")
    with archive.open(info) as content:
        return content.read(info.file_size)


def _decompressed(packed: io.BufferedReader) -> io.BufferedIOBase:
    """`packed` decompressed by what its first bytes say, whatever its suffix."""
    start = packed.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(packed)
    if start.startswith(b"BZh"):
        return bz2.open(packed)
    if start.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(packed)
    return packed


class _Metered(io.BufferedIOBase):
    """A stream that can't be read past `allowance` bytes, so that no header fills the memory."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.allowance = HEADER_LIMIT

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes; tarfile.ReadError past the allowance."""
        content = self._stream.read(size)
        self.allowance -= len(content)
        if self.allowance < 0:
            raise tarfile.ReadError("a header is too large")
        return content


class _Header(tarfile.TarInfo):
    """A header that raises where tarfile takes damage for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the mark at the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from error


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what a damaged archive raises into a DataError, and other trouble into a DiskError."""
    try:
        yield
    except OnecycleError:
        raise
    except Exception as error:  # archive readers raise nearly anything on damaged bytes
        # gzip's and bz2's own errors are OSErrors without a number; a wrong offset gives EINVAL.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise DiskError(f"cannot read {path}: {error.strerror}") from error
        what = f"{path}: damaged archive ({one_line(error)})"
        raise DataError(f"{what}: get or pack it again") from error


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
