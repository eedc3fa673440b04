"""A data set as a folder of the cache: written once, then opened memory-mapped.

<part>.u8    raw pixels (N, H, W, 3) uint8 in the order in which they were read
<part>.npy   (2, N) int64: rows of the images sorted by name, their labels
names.json   names in that order
meta.json    data set's name, shape, classes, digest, the images left out, and what was decided

A part is train, val or test; that of validation may be empty.
"""

import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.datasets.dataset import Dataset, Split, digest
from onecycle.datasets.source import SPLITS, Again, Contents, Image, Source
from onecycle.errors import DataError, few
from onecycle.files import atomic_file, read_json, write_json

LISTED = 100  # bad images that an error names; onecycle data names any number
PROGRESS_EVERY = 1000  # images

Progress = Callable[[int], None]


@dataclass
class _Read:
    """What was read besides the pixels."""

    images: dict[str, list[tuple[str, str | int]]] = field(  # names and labels as they came
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    skipped: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    count: int = 0  # of images, with those skipped
    contents: Contents = field(default_factory=lambda: Contents({}))


def open_folder(folder: Path) -> Dataset:
    """The data set in `folder`; one of several errors if it is damaged."""
    meta, names = read_json(folder / "meta.json"), read_json(folder / "names.json")
    classes = tuple(meta["classes"])
    parts = _open_splits(folder, tuple(meta["shape"]), len(classes), names)
    return Dataset(
        meta["name"],
        classes,
        **parts,
        digest=meta["digest"],
        skipped=tuple(meta["skipped"]),
        drawn=meta["drawn"],
        notes=tuple(meta["notes"]),
    )


def _open_splits(
    folder: Path, shape: tuple[int, ...], classes: int, names: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The parts in `folder`, of which there are those that have `names`."""
    return {
        split: _open_split(folder, split, shape, classes, tuple(names[split]))
        for split in SPLITS
        if names[split]
    }


def _open_split(
    folder: Path, split: str, shape: tuple[int, ...], classes: int, names: tuple[str, ...]
) -> Split:
    rows, labels = np.load(folder / f"{split}.npy", allow_pickle=False)
    file = folder / f"{split}.u8"
    sound = (
        len(names) == len(rows)
        and np.array_equal(np.sort(rows), np.arange(len(rows)))
        and 0 <= labels.min() <= labels.max() < classes
        and file.stat().st_size == len(rows) * np.prod(shape)
    )
    if not sound:
        raise ValueError(f"{folder} does not fit together")
    # Copy-on-write, because torch warns about memory that it may not write.
    pixels = np.memmap(file, np.uint8, mode="c", shape=(len(rows), *shape))
    return Split(pixels, rows, labels, names)


def write_folder(
    source: Source, folder: Path, skip_bad: bool, progress: Progress | None
) -> Mapping[str, str]:
    """Write the data set of `source` into `folder`, durably; the hashes of its files, if known.

    Raises DataError if it can't be used; with `skip_bad` bad images alone are no reason.
    """
    read = _write_pixels(source, folder, progress)
    if read.skipped and not skip_bad:
        raise refusal(source.path, read.skipped, read.count)
    _check_usable(source.path, read)
    classes = tuple(read.contents.classes.values())
    label_of = {key: label for label, key in enumerate(read.contents.classes)}
    names: dict[str, list[str]] = {}
    for split in SPLITS:
        images = read.images[split]
        order = sorted(range(len(images)), key=images.__getitem__)
        found = [images[row] for row in order]
        for (first, _), (second, _) in pairwise(found):
            if first == second:
                raise DataError(f"{source.path}: {first} is there twice: keep one of the two")
        numbered = read.contents.numbered
        names[split] = [
            f"{split}/{i:05d}" if numbered else name for i, (name, _) in enumerate(found)
        ]
        labels = [label_of[key] for _, key in found]
        with atomic_file(folder / f"{split}.npy") as file:
            np.save(file, np.array([order, labels], dtype=np.int64))
    parts = _open_splits(folder, read.shape, len(classes), names)
    meta = {
        "name": read.contents.name,
        "shape": read.shape,
        "classes": classes,
        "digest": digest(classes, **parts),
        "skipped": sorted(read.skipped),
        "drawn": read.contents.drawn,
        "notes": read.contents.notes,
    }
    write_json(folder / "names.json", names)
    write_json(folder / "meta.json", meta)
    return read.contents.hashes


def refusal(path: Path, bad: Collection[str], count: int) -> DataError:
    """The error for `bad` images, each with its reason, of `count` at `path`."""
    return DataError(
        f"{path}: {len(bad)} of {count} images can't be used: {few(sorted(bad), LISTED)}: repair "
        "or remove them, or leave them out with --skip-bad (onecycle data PATH lists them all)"
    )


def _write_pixels(source: Source, folder: Path, progress: Progress | None) -> _Read:
    """Write the `.u8` of each part."""
    read = _Read()
    with ExitStack() as stack:
        # Pillow warns of bombs and oddities that are either refused below or harmless.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        out = {split: stack.enter_context(open(folder / f"{split}.u8", "wb")) for split in SPLITS}
        for item in stack.enter_context(closing(source.read())):
            if isinstance(item, Contents):
                read.contents = item
            elif isinstance(item, Again):
                read = _Read()
                for file in out.values():
                    file.seek(0)
                    file.truncate()
            else:
                _take(item, read)
                if not isinstance(item.pixels, str):
                    out[item.split].write(item.pixels.data)
                if progress and read.count % PROGRESS_EVERY == 0:
                    progress(read.count)
        for file in out.values():
            file.flush()
            os.fsync(file.fileno())
    if progress and read.count % PROGRESS_EVERY:
        progress(read.count)
    return read


def _take(image: Image, read: _Read) -> None:
    """Note one more image in `read`."""
    read.count += 1
    if isinstance(image.pixels, str):
        read.skipped.append(f"{image.name} ({image.pixels})")
    else:
        read.images[image.split].append((image.name, image.label))
        read.shape = image.pixels.shape


def _check_usable(path: Path, read: _Read) -> None:
    """DataError unless there are two classes, training images of each, and a test image."""
    classes = read.contents.classes
    if len(classes) < 2:
        raise DataError(f"{path}: only one class ({few(classes.values())}); two are needed")
    left = f" ({len(read.skipped)} of {read.count} can't be used)" if read.skipped else ""
    trained = {label for _, label in read.images["train"]}
    lost = [name for label, name in classes.items() if label not in trained]
    if lost:
        raise DataError(f"{path}: no train images of class {few(lost)}{left}: add some")
    if not read.images["test"]:
        raise DataError(f"{path}: no test images{left}: add some")
