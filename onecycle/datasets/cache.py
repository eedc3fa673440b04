"""Images decoded once, then memory-mapped: the user's cache, keyed by content.

    <cache>/index/<key>.json   which entry a path led to, by its files' names, sizes and times
    <cache>/images/<key>/      an entry, by the content of these files
        train.u8  test.u8      raw pixels (N, H, W, 3) uint8 in the order in which they were read
        train.npy test.npy     (2, N) int64: rows of the images sorted by name, their labels
        names.json meta.json   names in that order; data set's name, shape, classes and digest

An entry appears whole or not at all: it is built in a temporary folder and renamed.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import platformdirs

from onecycle.datasets.dataset import CHUNK, Dataset, Split
from onecycle.datasets.folder import few
from onecycle.datasets.source import SPLITS, Contents, File, Source
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

FORMAT = 2  # part of every key: raise it when entries or decoding change
BUILDING = ".building-"  # how the names of temporary folders begin
ABANDONED = 24 * 3600  # seconds after which a temporary folder has no builder any more
PROGRESS_EVERY = 1000  # images

Progress = Callable[[int], None]


def load(source: Source, progress: Progress | None = None) -> Dataset:
    """The images of `source`; read only if the content of its files is new.

    `progress` is called now and then with the number of images read so far. Raises DataError
    for files that can't be used, DiskError for a cache that can't be written.
    """
    root = cache_folder()
    files = source.files()
    facts = [(file.name, file.size, file.mtime_ns) for file in files]
    index = root / "index" / f"{_key(str(source.path.resolve()), source.labels, *facts)}.json"
    known = _indexed(index)
    key = known or _content_key(source, {file.name: sha256_file(file.path) for file in files})
    entry = root / "images" / key
    dataset = _find(entry)
    if dataset is None:
        _build(source, files, entry, progress)
        with disk_errors(entry, "read"):
            dataset = _open(entry)
    if known is None:
        make_folder(index.parent)
        write_json(index, {"content": key})
    return replace(dataset, source=str(source.path))


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


def _content_key(source: Source, hashes: Mapping[str, str]) -> str:
    return _key(source.labels, *sorted(hashes.items()))


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
    return Dataset(meta["name"], classes, train, test, meta["digest"])


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


def _build(source: Source, files: list[File], entry: Path, progress: Progress | None) -> None:
    """Read the images of `source`, which are in `files`, into the new folder `entry`."""
    for left in make_folder(entry.parent).glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > ABANDONED:  # its process was killed
                shutil.rmtree(left, ignore_errors=True)
    temporary = entry.with_name(_temporary_name())
    try:
        with disk_errors(temporary, "write"):
            temporary.mkdir()
            hashes = _fill(source, temporary, progress)
            read_another = hashes and _content_key(source, hashes) != entry.name
            if read_another or source.files() != files:
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


def _fill(source: Source, folder: Path, progress: Progress | None) -> Mapping[str, str]:
    """Write everything that an entry is made of into `folder`, durably; the files' hashes."""
    images, shape, contents = _write_pixels(source, folder, progress)
    classes = tuple(contents.classes.values())
    label_of = {key: label for label, key in enumerate(contents.classes)}
    names: dict[str, list[str]] = {}
    for split in SPLITS:
        order = sorted(range(len(images[split])), key=images[split].__getitem__)
        found = [images[split][row] for row in order]
        for (first, _), (second, _) in pairwise(found):
            if first == second:
                raise DataError(f"{source.path}: {first} is there twice: keep one of the two")
        names[split] = [
            f"{split}/{i:05d}" if contents.numbered else name for i, (name, _) in enumerate(found)
        ]
        labels = [label_of[key] for _, key in found]
        with atomic_file(folder / f"{split}.npy") as file:
            np.save(file, np.array([order, labels], dtype=np.int64))
    train, test = (
        _open_split(folder, split, shape, len(classes), tuple(names[split])) for split in SPLITS
    )
    meta = {"name": contents.name, "shape": shape, "classes": classes}
    write_json(folder / "names.json", names)
    write_json(folder / "meta.json", meta | {"digest": digest(classes, train, test)})
    return contents.hashes


def _write_pixels(
    source: Source, folder: Path, progress: Progress | None
) -> tuple[dict[str, list[tuple[str, str | int]]], tuple[int, ...], Contents]:
    """Write `train.u8` and `test.u8`; names and labels as they came, an image's shape, the rest."""
    images: dict[str, list[tuple[str, str | int]]] = {split: [] for split in SPLITS}
    contents = Contents({})
    bad: list[str] = []
    shape: tuple[int, ...] = ()
    count = 0
    with ExitStack() as stack:
        # Pillow warns of bombs and oddities that are either refused below or harmless.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        out = {split: stack.enter_context(open(folder / f"{split}.u8", "wb")) for split in SPLITS}
        for image in stack.enter_context(closing(source.read())):
            if isinstance(image, Contents):
                contents = image
                continue
            count += 1
            if isinstance(image.pixels, str):
                bad.append(f"{image.name} ({image.pixels})")
            else:
                out[image.split].write(image.pixels.data)
                images[image.split].append((image.name, image.label))
                shape = image.pixels.shape
            if progress and count % PROGRESS_EVERY == 0:
                progress(count)
        for file in out.values():
            file.flush()
            os.fsync(file.fileno())
    if bad:
        raise DataError(
            f"{source.path}: {len(bad)} of {count} images can't be used: {few(bad)}: "
            "repair or remove them"
        )
    if progress and count % PROGRESS_EVERY:
        progress(count)
    return images, shape, contents
