"""One way in: the name of a data set, or a path, to a checked `Dataset`."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from onecycle.datasets import cache, cifar, digits, fetch, folder, images, table
from onecycle.datasets.archive import ARCHIVE_SUFFIXES, has_archive_suffix
from onecycle.datasets.cifar_form import SIDE
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.decode import LARGEST, SMALLEST
from onecycle.datasets.source import Reader, Source
from onecycle.errors import DataError, RecipeError, did_you_mean
from onecycle.files import disk_errors

CLASSES = {"cifar10": 10, "cifar100": 100, "cifar100-coarse": 20}
NAMES = ("digits", *CLASSES)
# Display names of data sets, by their digest.
KNOWN = {
    "569f1674dda452c3e554db3b59583f921e9d4d5fe4c007a870c768b0cb690045": "CIFAR-10 (JPEG q75)",
}


def load(
    spec: str | Path,
    progress: Callable[[int], None] | None = None,
    downloading: fetch.Progress | None = None,
    *,
    skip_bad: bool = False,
    image_size: int | None = None,
) -> Dataset:
    """The data set `spec`: one of `NAMES`, or the path of a folder or archive.

    A path holds images as `layout` says, or names a CSV file as `table` says, or holds CIFAR-10 or
    CIFAR-100 as published (with fine labels). `cifar10`, `cifar100` (fine labels) and
    `cifar100-coarse` are looked for in `$ONECYCLE_DATA`, else in the cache, else downloaded into
    it. `progress` is called now and then with the number of images read so far, `downloading` with
    the bytes that are there and all bytes.

    With `skip_bad` images that can't be used are left out and listed in `Dataset.skipped`.
    `image_size` is that of pictures, in pixels (`decode` says how they come to it and what is
    chosen without it); digits and CIFAR as published have their own. Raises DataError, RecipeError
    for another `image_size`, or DiskError for a cache that can't be written.
    """
    given = str(spec)
    if image_size is not None and not SMALLEST <= image_size <= LARGEST:
        raise RecipeError(
            f"--image-size {image_size}: give a number of pixels from {SMALLEST} to {LARGEST}"
        )
    if given == "digits":
        _check_own_size("digits", digits.SIZE, image_size)
        return digits.load()
    path = _named(given, downloading) if given in CLASSES else _expanded(given)
    with disk_errors(path, "read"):
        if not path.exists():
            raise DataError(
                f"{given}: no such file or folder, and not one of {', '.join(NAMES)}"
                f"{did_you_mean(given, NAMES)}"
            )
    coarse = given == "cifar100-coarse"
    found = source(path, "coarse" if coarse else "fine", image_size)
    dataset = cache.load(found, progress, skip_bad=skip_bad)
    if len(dataset.classes) != CLASSES.get(given, len(dataset.classes)):
        raise DataError(
            f"{given}: {path} has {len(dataset.classes)} classes, not {CLASSES[given]}: "
            "point ONECYCLE_DATA elsewhere, or pass --data PATH"
        )
    name = KNOWN.get(dataset.digest) or dataset.name or _stem(path)
    # What `load` takes to give the same again: a path alone stands for fine labels.
    return replace(dataset, name=name, source=given if coarse else str(path.resolve()))


def kind(spec: str | Path) -> str:
    """What `spec` stands for: digits, cifar, or pictures, which is also what is not there."""
    given = str(spec)
    if given in NAMES:
        return "digits" if given == "digits" else "cifar"
    path = _expanded(given)
    with disk_errors(path, "read"):
        if path.is_dir():
            return "cifar" if cifar.find(path) else "pictures"
        packed = path.is_file() and has_archive_suffix(path) and cifar.find_packed(path)
        return "cifar" if packed else "pictures"


def source(path: Path, labels: str = "fine", image_size: int | None = None) -> Source:
    """What is at `path`; CIFAR is recognised by its files, and anything else taken for images.

    Raises DataError if there is no folder or archive, or a folder holds two CIFARs, RecipeError
    for an `image_size` that CIFAR doesn't have.
    """
    if table.is_table(path):
        read = partial(images.read, path, image_size)
        return Source(path, labels, partial(folder.listing, path), read, image_size)
    if folder.is_archive(path):
        read = partial(_packed, path, labels, image_size)
        return Source(path, labels, partial(folder.listing, path), read, image_size)
    found = cifar.find(path)
    if not found:
        read = partial(images.read, path, image_size)
        return Source(path, labels, partial(folder.listing, path), read, image_size)
    if len({form.data for form, _ in found}) > 1:
        raise DataError(f"{path} holds {' and '.join(place.name for _, place in found)}: name one")
    form, place = found[0]
    _check_own_size(str(place), SIDE, image_size)
    arguments = (place, form, labels)
    return Source(
        place, labels, partial(cifar.listing, *arguments), partial(cifar.read, *arguments)
    )


def _packed(path: Path, labels: str, image_size: int | None) -> Reader:
    found = cifar.find_packed(path)
    if found:
        _check_own_size(str(path), SIDE, image_size)
        yield from cifar.read_packed(path, *found, labels)
    else:
        yield from images.read(path, image_size)


def _check_own_size(data: str, size: int, image_size: int | None) -> None:
    if image_size not in (None, size):
        raise RecipeError(
            f"--image-size {image_size}: the images of {data} have {size} pixels; only pictures "
            "of your own are resized"
        )


def _expanded(given: str) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise DataError(f"{given}: {error}: give the path in full") from error


def _stem(path: Path) -> str:
    """The name of the folder or file at `path`, a file's without its suffix or an archive's two."""
    path = path.resolve()
    name = path.name
    if path.is_dir():
        return name
    known = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: len(name) - len(max(known, key=len, default=path.suffix))]


def _named(name: str, downloading: fetch.Progress | None) -> Path:
    """CIFAR in `$ONECYCLE_DATA`, else in the cache's downloads, else downloaded there."""
    data = name.removesuffix("-coarse")
    return located(data) or fetch.download(data, _downloads(), downloading)


def _downloads() -> Path:
    return cache.cache_folder() / "downloads"


def located(name: str) -> Path | None:
    """Where `cifar10` or `cifar100` is, in `$ONECYCLE_DATA` or else in the cache; None if nowhere.

    Raises DataError if `$ONECYCLE_DATA` is set and doesn't hold it.
    """
    given = os.environ.get("ONECYCLE_DATA")
    place = _expanded(given) if given else _downloads()
    if (found := _inside(place, name)) or not given:
        return found
    problem = f"holds nothing named {name}*" if place.exists() else "does not exist"
    raise DataError(
        f"{name}: ONECYCLE_DATA={given} {problem}: set it to the folder or archive of {name}, "
        "pass --data PATH, or try --data digits"
    )


def _inside(place: Path, data: str) -> Path | None:
    """`place` itself if it is an archive or an image folder, else what is `data` inside it."""
    with disk_errors(place, "read"):
        if place.is_file() or all((place / part).is_dir() for part in ("train", "test")):
            return place
        for form, found in cifar.find(place):
            if form.data == data:
                return found
        named = re.compile(data.replace("cifar", "cifar-?") + r"(?!\d)")
        for entry in sorted(place.iterdir()) if place.is_dir() else []:
            if named.match(entry.name) and (entry.is_dir() or has_archive_suffix(entry)):
                return entry
    return None
