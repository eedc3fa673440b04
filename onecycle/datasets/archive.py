"""Archives read entry by entry, in their own order: nothing is ever extracted to disk."""

import bz2
import errno
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from onecycle.datasets.layout import is_image
from onecycle.errors import DataError, DiskError, OnecycleError, one_line

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")
HEADER_LIMIT = 2**20  # bytes of all headers of one tar member
BUFFER = 2**16  # bytes read from an archive at once

# An archive's entry: its path, its size in bytes, and what reads it.
Entry = tuple[str, int, Callable[[], bytes]]
# Told each block of an archive's bytes in turn, as they are in the file.
Watch = Callable[[bytes], object]


def has_archive_suffix(path: Path) -> bool:
    """Whether `path` is named like an archive that can be read."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def entries(path: Path, watch: Watch | None = None) -> Generator[Entry]:
    """The regular files in the archive at `path`; see `damage` for what it may raise.

    `watch` has been told the whole file when the last entry was read.
    """
    is_zip = path.name.lower().endswith(".zip")
    return _zip_entries(path, watch) if is_zip else _tar_entries(path, watch)


def _tar_entries(path: Path, watch: Watch | None) -> Generator[Entry]:
    with _opened(path, watch) as packed, _decompressed(packed) as plain:
        stream = _Metered(plain)
        with tarfile.open(None, "r|", stream, BUFFER, tarinfo=_Header, encoding="utf-8") as archive:
            while (info := archive.next()) is not None:
                if info.issparse():
                    raise tarfile.ReadError(f"sparse member {info.name!a}")
                stream.allowance = info.size + HEADER_LIMIT
                if info.islnk() or info.issym():
                    _refuse_image(path, info.name)
                if info.isreg():
                    yield info.name, info.size, partial(_read_tar_member, archive, info)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        # To the end, because a compressed file's checksum may stand there.
        for rest in (plain, packed):
            while rest.read(BUFFER):
                pass


def _zip_entries(path: Path, watch: Watch | None) -> Generator[Entry]:
    with open(path, "rb") as packed, zipfile.ZipFile(packed) as archive:
        if watch:
            packed.seek(0)
            while block := packed.read(BUFFER):
                watch(block)
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the packer kept no file modes
            if kind == stat.S_IFLNK:
                _refuse_image(path, info.filename)
            if not info.is_dir() and kind in (0, stat.S_IFREG):
                yield info.filename, info.file_size, partial(_read_zip_member, archive, info)


def _refuse_image(path: Path, link: str) -> None:
    """DataError if `link` is named like an image: to pass over it could lose a class."""
    if is_image(link):
        raise DataError(
            f"{path}: {link!a} is a link, not a picture: pack the files themselves "
            "(tar --dereference --hard-dereference; zip without --symlinks)"
        )


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


def _opened(path: Path, watch: Watch | None) -> io.BufferedReader:
    return io.BufferedReader(_Watched(path, watch), BUFFER) if watch else open(path, "rb")


class _Watched(io.FileIO):
    """A file that tells `watch` what is read from it."""

    def __init__(self, path: Path, watch: Watch) -> None:
        super().__init__(path)
        self._watch = watch

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._watch(bytes(memoryview(buffer)[:count]))
        return count


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
def damage(path: Path) -> Iterator[None]:
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
