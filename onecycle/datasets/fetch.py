"""CIFAR archives fetched once: from several mirrors, resumed, and checked before they appear."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from onecycle.datasets.cifar_form import CIFAR10_PYTHON, CIFAR100_PYTHON, Archive
from onecycle.errors import DataError, one_line
from onecycle.files import disk_errors, make_folder, sync_folder

# Base addresses: the author's, and PaddlePaddle's, whose own loaders fetch the same archives there.
MIRRORS = ("https://www.cs.toronto.edu/~kriz", "https://dataset.bj.bcebos.com/cifar")
CONNECT_SECONDS = 4.0
STALL_SECONDS = 20.0  # without a byte
TRIES = 10  # at one mirror, each going on where the last broke off
SLOW_RATE = 200_000  # bytes/s: a slower mirror is put off until the others have failed
SLOW_AFTER = 20.0  # seconds, from when on a rate can be judged
BLOCK = 2**16  # bytes

Progress = Callable[[int, int], None]


ARCHIVES = {"cifar10": CIFAR10_PYTHON, "cifar100": CIFAR100_PYTHON}  # which both mirrors have


class _Failed(Exception):
    """Why a mirror did not deliver."""


class _Slow(_Failed):
    """A mirror delivers, but slowly."""


def download(data: str, folder: Path, progress: Progress | None = None) -> Path:
    """The archive of `data` (`cifar10` or `cifar100`) in `folder`, fetched if it is not there yet.

    `$ONECYCLE_MIRROR`, a base address, is tried first. What broke off is gone on with, now or by
    the next call. `progress` is called with the bytes that are there and all bytes. Another
    process that is fetching is waited for. Raises DataError if no mirror delivers the right bytes,
    DiskError if they can't be written.
    """
    archive = ARCHIVES[data]
    target = make_folder(folder) / archive.file
    with disk_errors(folder, "write"), open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _try_mirrors(data, target, progress)
    return target


def _try_mirrors(data: str, target: Path, progress: Progress | None) -> None:
    archive = ARCHIVES[data]
    part = target.with_name(f".{target.name}.part")
    first = os.environ.get("ONECYCLE_MIRROR")
    queue = [(mirror, False) for mirror in ((first, *MIRRORS) if first else MIRRORS)]
    reasons: dict[str, str] = {}
    for mirror, patient in queue:  # it grows
        for _ in range(TRIES):
            before = _size(part)
            try:
                _retrieve(
                    f"{mirror.rstrip('/')}/{archive.file}", archive, target, patient, progress
                )
                return
            except _Slow:
                queue.append((mirror, True))
                break
            except _Failed as error:
                reasons[mirror] = str(error)
            after = _size(part)
            # Once more where it helped, or where the bytes of an earlier try may be the wrong ones.
            if after <= before and not (before and not after):
                break
    tried = "; ".join(f"{where}: {reason}" for where, reason in reasons.items())
    raise DataError(
        f"{data} could not be downloaded ({tried}): name a local copy with --data PATH or "
        "ONECYCLE_DATA, or another mirror with ONECYCLE_MIRROR, or try --data digits"
    )


def _retrieve(
    url: str, archive: Archive, target: Path, patient: bool, progress: Progress | None
) -> None:
    """Bring the file at `url` to `target` if it has the right checksum; else raise _Failed."""
    # Slow to import, and only a download needs them.
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    part = target.with_name(f".{target.name}.part")

    def downloader(url: str, output: str, _: object) -> None:
        _receive(url, part, archive.size, patient, progress)
        part.replace(output)

    before = _size(part)
    try:
        pooch.retrieve(url, f"md5:{archive.md5}", target.name, target.parent, downloader=downloader)
    except requests.RequestException as error:
        if _size(part) > before:
            raise _Failed(f"broke off or stalled at {_size(part):,} bytes") from error
        # An address that is none is said at length; the rest would be pages.
        said = one_line(error) if isinstance(error, ValueError) else type(error).__name__
        raise _Failed(f"nothing came ({said})") from error
    except ValueError as error:  # pooch's for a wrong checksum; the bytes are gone already
        raise _Failed("wrong bytes") from error
    sync_folder(target.parent)


def _receive(url: str, part: Path, size: int, patient: bool, progress: Progress | None) -> None:
    """Add to the file `part` what it lacks of the `size` bytes at `url`."""
    import requests

    have = _size(part)
    if have == size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = (CONNECT_SECONDS, STALL_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.ok:
            have = 0  # it sends everything, asked for or not
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _Failed(f"HTTP {response.status_code}")
        length = response.headers.get("Content-Length", str(size - have))
        if length != str(size - have):
            raise _Failed(f"it has {length} bytes to send, not {size - have}")
        start, begun = have, time.monotonic()
        with open(part, "ab" if have else "wb") as file:
            for block in response.iter_content(BLOCK):
                file.write(block[: size - have])
                have = min(size, have + len(block))
                if progress:
                    progress(have, size)
                seconds = time.monotonic() - begun
                if seconds > SLOW_AFTER and have - start < SLOW_RATE * seconds and not patient:
                    raise _Slow(f"slower than {SLOW_RATE:,} bytes/s")
            file.flush()
            os.fsync(file.fileno())
    if have < size:
        raise _Failed(f"broke off at {have:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
