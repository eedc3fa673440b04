"""Images decoded once, then memory-mapped: the user's cache, keyed by content.

    <cache>/index/<key>.json   which entry a path led to, by its files' names, sizes and times
    <cache>/images/<key>/      an entry, by the content of these files and the size asked for
    (both also by what is to be told of other files, which the entry holds)

An entry without the bad images serves whoever wants to skip them, and names them to others.
An entry appears whole or not at all: it is built in a temporary folder and renamed.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import platformdirs

from onecycle.datasets.dataset import Dataset
from onecycle.datasets.entry import Progress, open_folder, refusal, write_folder
from onecycle.datasets.source import Listing, Source
from onecycle.errors import DataError, DiskError
from onecycle.files import (
    disk_errors,
    make_folder,
    read_json,
    sha256_file,
    sync_folder,
    write_json,
)

FORMAT = 6  # part of every key: raise it when entries or decoding change
BUILDING = ".building-"  # how the names of temporary folders begin
ABANDONED = 24 * 3600  # seconds after which a temporary folder has no builder any more


def load(source: Source, progress: Progress | None = None, *, skip_bad: bool = False) -> Dataset:
    """The images of `source`; read only if the content of its files is new.

    `progress` is called now and then with the number of images read so far. Raises DataError
    for files that can't be used (with `skip_bad`, bad images are left out instead), DiskError for
    a cache that can't be written.
    """
    root = cache_folder()
    listing = source.listing()
    facts = [(file.name, file.size, file.mtime_ns) for file in listing.files]
    where = (str(source.path.resolve()), source.labels, source.image_size)
    place = _key(*where, *listing.notes, *facts)
    index = root / "index" / f"{place}.json"
    known = _indexed(index)
    key = known or _content_key(
        source, listing, {file.name: sha256_file(file.path) for file in listing.files}
    )
    entry = root / "images" / key
    dataset = _find(entry)
    if dataset is None:
        _build(source, listing, entry, skip_bad, progress)
        with disk_errors(entry, "read"):
            dataset = open_folder(entry)
    if dataset.skipped and not skip_bad:
        parts = (dataset.train, dataset.val or (), dataset.test, dataset.skipped)
        count = sum(map(len, parts))
        raise refusal(source.path, dataset.skipped, count)
    if known is None:
        make_folder(index.parent)
        write_json(index, {"content": key})
    return dataset


def cache_folder() -> Path:
    """Where decoded images are kept: `$ONECYCLE_CACHE`, or the system's place for caches."""
    return Path(os.environ.get("ONECYCLE_CACHE") or platformdirs.user_cache_dir("onecycle"))


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


def _content_key(source: Source, listing: Listing, hashes: Mapping[str, str]) -> str:
    return _key(source.labels, source.image_size, *listing.notes, *sorted(hashes.items()))


def _indexed(index: Path) -> str | None:
    """The content key in the file `index`; None if there is none."""
    with suppress(DiskError, KeyError, TypeError, ValueError):
        key = read_json(index)["content"]
        if len(bytes.fromhex(key)) == hashlib.sha256().digest_size:
            return str(key)
    return None


def _find(entry: Path) -> Dataset | None:
    """The data set in `entry`; None if there is none. A damaged entry is thrown away."""
    with disk_errors(entry, "read"):
        if not entry.exists():
            return None
    try:
        return open_folder(entry)
    except (DiskError, OSError, EOFError, KeyError, TypeError, ValueError):
        # Renamed first, so that no other reader meets half of it.
        discarded = entry.with_name(_temporary_name())
        with disk_errors(entry, "remove"), suppress(FileNotFoundError):
            entry.rename(discarded)
            shutil.rmtree(discarded)
        return None


def _temporary_name() -> str:
    return f"{BUILDING}{os.getpid()}-{secrets.token_hex(4)}"


def _build(
    source: Source, listing: Listing, entry: Path, skip_bad: bool, progress: Progress | None
) -> None:
    """Read the images of `source`, which are in `listing`, into the new folder `entry`."""
    for left in make_folder(entry.parent).glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED:  # its process was killed
                shutil.rmtree(left, ignore_errors=True)
    temporary = entry.with_name(_temporary_name())
    try:
        with disk_errors(temporary, "write"):
            temporary.mkdir()
            hashes = write_folder(source, temporary, skip_bad, progress)
            read_another = hashes and _content_key(source, listing, hashes) != entry.name
            if read_another or source.listing() != listing:
                raise DataError(f"{source.path} changed while it was read: try again")
            try:
                temporary.rename(entry)
            except OSError:
                # A folder can't replace a full one: another process was faster, with the same.
                if not entry.is_dir():
                    raise
            sync_folder(entry.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
