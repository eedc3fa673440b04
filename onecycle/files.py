"""Durable files: atomic writes, checksums and the lock that keeps a run folder to one writer."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.errors import DiskError, OnecycleError

LOCK_NAME = "lock"
LARGEST = 4 * 2**30  # bytes of a file that is read at once
NAMED_WITHIN = 2.0  # seconds that the holder of a lock has to write its name


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError inside the block into a DiskError that names `path` and what was tried."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"cannot {doing} {path}: {error.strerror or error}") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path`, whole and durable, when the block ends without error.

    Written beside `path`, fsynced, renamed over it, and then the folder is fsynced: after a
    crash there is either the old content or the new one. Raises DiskError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path, "write"):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(content)


def json_bytes(content: Any) -> bytes:
    """`content` as the indented JSON that `write_json` writes."""
    return (json.dumps(content, indent=2) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` atomically as indented JSON."""
    write_bytes(path, json_bytes(content))


def read_bytes(path: Path) -> bytes:
    """The content of `path`; DiskError if it is missing, or larger than onecycle writes any."""
    with disk_errors(path, "read"), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST:
            raise DiskError(f"cannot read {path}: {size:,} bytes are more than onecycle writes")
        return file.read(size)  # which reserves so much at once


def read_json(path: Path) -> Any:
    """The JSON at `path`; DiskError if it is missing or no JSON."""
    return parse_json(path, read_bytes(path))


def parse_json(path: Path, content: bytes) -> Any:
    """The JSON in `content`, which `path` holds; DiskError if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DiskError(f"cannot read {path}: not JSON ({error})") from error


def sha256_bytes(content: bytes | memoryview) -> str:
    """Hex SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of the file at `path`."""
    with disk_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> Path:
    """Make `path` and its parents if they are missing; DiskError if that can't be."""
    with disk_errors(path, "make the folder"):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def clear_temporary(folder: Path) -> None:
    """Remove the files that a killed process had begun to write into `folder`.

    For the one process that writes there.
    """
    with disk_errors(folder, "clear"):
        for path in folder.glob(".*.tmp"):
            path.unlink()


def size(folder: Path) -> int:
    """Bytes of the files in `folder` and the folders in it. Raises DiskError."""
    with disk_errors(folder, "read"):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_space(folder: Path, needed: int) -> None:
    """DiskError if the disk of `folder` has less than `needed` bytes free."""
    with disk_errors(folder, "read"):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"{folder}: {free / 1e6:,.0f} MB are free there, and a run needs "
            f"{needed / 1e6:,.0f} MB: make room, or choose another --out"
        )


class FolderLock:
    """The right to write into a folder, held until `release` or the end of the process.

    The kernel frees it (flock) when the holder dies, so no lock is ever left behind; the holder's
    forked children, such as a loader's workers, let go of it at once. Raises OnecycleError naming
    the holder when another process has it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        with disk_errors(path, "write"):
            self._file = open(path, "a+")  # noqa: SIM115 (held open on purpose)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self._file.close()
            raise OnecycleError(
                f"{folder} is being written by {holder}: wait for it, or choose another --out"
            ) from None
        except OSError as error:  # some network file systems have no locks
            self._file.close()
            raise DiskError(
                f"{folder} can't be locked ({error.strerror}): choose an --out on a local disk"
            ) from error
        with disk_errors(path, "write"):
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        _held.add(self)

    def release(self) -> None:
        """Let the folder go."""
        self._file.close()
        _held.discard(self)

    def _holder(self) -> str:
        """Who holds the lock; one that got it this moment is still writing its name."""
        until = time.monotonic() + NAMED_WITHIN
        while True:
            self._file.seek(0)
            holder = self._file.read().strip()
            if holder or time.monotonic() > until:
                return holder or "another process"
            time.sleep(0.01)


_held: set[FolderLock] = set()


def _let_go() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go)
