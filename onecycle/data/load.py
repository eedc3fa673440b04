"""One way in: the name of a data set, or a path, to a checked `Dataset`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from onecycle.data import cache, digits
from onecycle.data.archive import ARCHIVE_SUFFIXES, has_archive_suffix
from onecycle.data.dataset import Dataset, check
from onecycle.errors import DataError, did_you_mean
from onecycle.files import disk_errors

NAMES = ("digits", "cifar10")
# Display names of data sets, by their digest.
KNOWN = {
    "569f1674dda452c3e554db3b59583f921e9d4d5fe4c007a870c768b0cb690045": "CIFAR-10 (JPEG q75)",
}


def load(spec: str | Path, progress: Callable[[int], None] | None = None) -> Dataset:
    """The data set `spec`: `digits`, `cifar10`, or the path of an image folder or archive.

    `cifar10` is looked for in `$ONECYCLE_DATA`, else in the cache. `progress` is called now and
    then with the number of images decoded so far. Raises DataError, or DiskError for a cache that
    can't be written.
    """
    given = str(spec)
    if given == "digits":
        return check(digits.load())
    path = _cifar10() if given == "cifar10" else _expanded(given)
    with disk_errors(path, "read"):
        if not path.exists():
            raise DataError(
                f"{given}: no such file or folder, and not one of {', '.join(NAMES)}"
                f"{did_you_mean(given, NAMES)}"
            )
    dataset = cache.load(path, progress)
    name = KNOWN.get(dataset.digest) or _stem(path)
    return check(replace(dataset, name=name, source=str(path.resolve())))


def _expanded(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise DataError(f"{given}: {error}: give the path in full") from error


def _stem(path: Path) -> str:
    """The name of the folder or archive at `path`, without an archive's suffixes."""
    name = path.resolve().name
    lengths = [len(suffix) for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name if path.is_dir() else name[: -max(lengths)]


def _cifar10() -> Path:
    """CIFAR-10 in `$ONECYCLE_DATA` (itself, or an entry named `cifar10*`), else in the cache."""
    ways_out = "set ONECYCLE_DATA to its folder or archive, pass --data PATH, or try --data digits"
    given = os.environ.get("ONECYCLE_DATA")
    folder = _expanded(given) if given else cache.cache_folder() / "downloads"
    where = f"ONECYCLE_DATA={given}" if given else f"ONECYCLE_DATA is not set, and {folder}"
    with disk_errors(folder, "read"):
        if given and not folder.exists():
            raise DataError(f"cifar10: ONECYCLE_DATA={given} does not exist: {ways_out}")
        if folder.is_file() or all((folder / part).is_dir() for part in ("train", "test")):
            return folder
        for entry in sorted(folder.glob("cifar10*")):
            if entry.is_dir() or has_archive_suffix(entry):
                return entry
    raise DataError(f"cifar10: {where} holds nothing named cifar10*: {ways_out}")
