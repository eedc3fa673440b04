"""Images decoded once, then memory-mapped: the user's cache, keyed by content.

    <cache>/index/<key>.json   which entry a path led to, by its files' names, sizes and times
    <cache>/images/<key>/      an entry, by the content of these files
        train.u8  test.u8      raw pixels (N, H, W, 3) uint8 in the order in which they were read
        train.npy test.npy     (2, N) int64: rows of the images sorted by file name, their labels
        names.json meta.json   file names in that order; shape, classes and digest

An entry appears whole or not at all: it is built in a temporary folder and renamed.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import platformdirs

from onecycle.data import decode
from onecycle.data.dataset import CHUNK, Dataset, Split
from onecycle.data.folder import SPLITS, File, few, files
from onecycle.errors import DataError, DiskError
from onecycle.files import (
    atomic_file,
    disk_errors,
    make_folder,
    read_json,
    sha256_file,
    sync_folder,
    write_json,
)

FORMAT = 1  # part of every key: raise it when entries or decoding change
BUILDING = ".building-"  # how the names of temporary folders begin
ABANDONED = 24 * 3600  # seconds after which a temporary folder has no builder any more
PROGRESS_EVERY = 1000  # images

Progress = Callable[[int], None]


def load(path: Path, progress: Progress | None = None) -> Dataset:
    """The images at `path`, a folder or archive; decoded only if their content is new.

    `progress` is called now and then with the number of images decoded so far. Raises DataError
    for images or archives that can't be used, DiskError for a cache that can't be written.
    """
    root = cache_folder()
    listing = files(path)
    seen = _key(str(path.resolve()), *((file.name, file.size, file.mtime_ns) for file in listing))
    index = root / "index" / f"{seen}.json"
    known = _indexed(index)
    key = known or _content_key(path, listing)
    entry = root / "images" / key
    dataset = _find(entry)
    if dataset is None:
        _build(path, listing, entry, progress)
        with disk_errors(entry, "read"):
            dataset = _open(entry)
    if known is None:
        make_folder(index.parent)
        write_json(index, {"content": key})
    return replace(dataset, name=path.name, source=str(path))


def cache_folder() -> Path:
    """Where decoded images are kept: `$ONECYCLE_CACHE`, or the system's place for caches."""
    return Path(os.environ.get("ONECYCLE_CACHE") or platformdirs.user_cache_dir("onecycle"))


def digest(classes: tuple[str, ...], train: Split, test: Split) -> str:
    """Hex SHA-256 of class names, image shape, and each part's labels and pixels in its order."""
    header = {
        "classes": classes,
        "shape": train.pixels.shape[1:],
        "counts": (len(train), len(test)),
    }
    total = hashlib.sha256(json.dumps(header).encode())
    for split in (train, test):
        total.update(split.labels.astype("<i8").tobytes())
        for start in range(0, len(split), CHUNK):
            total.update(split.images(start, start + CHUNK).tobytes())
    return total.hexdigest()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([FORMAT, *parts]).encode()).hexdigest()


def _content_key(path: Path, listing: list[File]) -> str:
    if not path.is_dir():
        return _key(sha256_file(path))  # under any name
    return _key(*((file.name, sha256_file(file.path)) for file in listing))


def _indexed(index: Path) -> str | None:
    """The content key in the file `index`; None if there is none."""
    with suppress(DiskError, KeyError, TypeError, ValueError):
        key = read_json(index)["content"]
        if len(bytes.fromhex(key)) == hashlib.sha256().digest_size:
            return str(key)
    return None


def _find(entry: Path) -> Dataset | None:
    """The data set in `entry`; None if there is none. A damaged entry is thrown away."""
    if not entry.exists():
        return None
    try:
        return _open(entry)
    except (DiskError, OSError, EOFError, KeyError, TypeError, ValueError):
        # Renamed first, so that no other reader meets half of it.
        discarded = entry.with_name(_temporary_name())
        with disk_errors(entry, "remove"), suppress(FileNotFoundError):
            entry.rename(discarded)
            shutil.rmtree(discarded)
        return None


def _open(entry: Path) -> Dataset:
    """The data set in the folder `entry`; one of several errors if it is damaged."""
    meta, names = read_json(entry / "meta.json"), read_json(entry / "names.json")
    classes = tuple(meta["classes"])
    train, test = (
        _open_split(entry, split, tuple(meta["shape"]), len(classes), tuple(names[split]))
        for split in SPLITS
    )
    return Dataset("", classes, train, test, meta["digest"])


def _open_split(
    entry: Path, split: str, shape: tuple[int, ...], classes: int, names: tuple[str, ...]
) -> Split:
    rows, labels = np.load(entry / f"{split}.npy", allow_pickle=False)
    file = entry / f"{split}.u8"
    sound = (
        len(names) == len(rows)
        and np.array_equal(np.sort(rows), np.arange(len(rows)))
        and 0 <= labels.min() <= labels.max() < classes
        and file.stat().st_size == len(rows) * np.prod(shape)
    )
    if not sound:
        raise ValueError(f"{entry} does not fit together")
    # Copy-on-write, because torch warns about memory that it may not write.
    pixels = np.memmap(file, np.uint8, mode="c", shape=(len(rows), *shape))
    return Split(pixels, rows, labels, names)


def _temporary_name() -> str:
    return f"{BUILDING}{os.getpid()}-{secrets.token_hex(4)}"


def _build(path: Path, listing: list[File], entry: Path, progress: Progress | None) -> None:
    """Decode the images at `path` into the new folder `entry`."""
    for left in make_folder(entry.parent).glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED:  # its process was killed
                shutil.rmtree(left, ignore_errors=True)
    temporary = entry.with_name(_temporary_name())
    try:
        with disk_errors(temporary, "write"):
            temporary.mkdir()
            _fill(path, temporary, progress)
            if files(path) != listing:
                raise DataError(f"{path} changed while it was read: try again")
            try:
                temporary.rename(entry)
            except OSError:
                # A folder can't replace a full one: another process was faster, with the same.
                if not entry.is_dir():
                    raise
            sync_folder(entry.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(path: Path, folder: Path, progress: Progress | None) -> None:
    """Write everything that an entry is made of into `folder`, durably."""
    names, shape = _write_pixels(path, folder, progress)
    classes = sorted({name.split("/")[1] for name in names["train"]})
    label_of = {name: label for label, name in enumerate(classes)}
    for split in SPLITS:
        rows = sorted(range(len(names[split])), key=names[split].__getitem__)
        names[split].sort()
        for first, second in pairwise(names[split]):
            if first == second:
                raise DataError(f"{path}: {first} is there twice: keep one of the two")
        labels = [label_of[name.split("/")[1]] for name in names[split]]
        with atomic_file(folder / f"{split}.npy") as file:
            np.save(file, np.array([rows, labels], dtype=np.int64))
    train, test = (
        _open_split(folder, split, shape, len(classes), tuple(names[split])) for split in SPLITS
    )
    content = digest(tuple(classes), train, test)
    write_json(folder / "names.json", names)
    write_json(folder / "meta.json", {"shape": shape, "classes": classes, "digest": content})


def _write_pixels(
    path: Path, folder: Path, progress: Progress | None
) -> tuple[dict[str, list[str]], tuple[int, ...]]:
    """Decode into `train.u8` and `test.u8`; the names as they came, and an image's shape."""
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    bad: list[str] = []
    shape: tuple[int, ...] = ()
    count = 0
    with ExitStack() as stack:
        # Pillow warns of bombs and oddities that are either refused below or harmless.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        out = {split: stack.enter_context(open(folder / f"{split}.u8", "wb")) for split in SPLITS}
        images = stack.enter_context(closing(decode.decoded(path)))
        for count, (member, pixels) in enumerate(images, start=1):
            if isinstance(pixels, str):
                bad.append(f"{member.name} ({pixels})")
            else:
                out[member.split].write(pixels.data)
                names[member.split].append(member.name)
                shape = pixels.shape
            if progress and count % PROGRESS_EVERY == 0:
                progress(count)
        for file in out.values():
            file.flush()
            os.fsync(file.fileno())
    if bad:
        raise DataError(
            f"{path}: {len(bad)} of {count} images can't be used: {few(bad)}: repair or remove them"
        )
    if progress and count % PROGRESS_EVERY:
        progress(count)
    return names, shape
