"""CIFAR-10 and CIFAR-100 as they are published: found and read, packed or unpacked.

A member of an archive is read by its name, under a size cap, and never extracted. The images keep
the published order, and the classes that of the file with their names.
"""

import hashlib
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from onecycle.datasets.archive import damage, entries
from onecycle.datasets.cifar_form import (
    CHANNELS,
    FORMS,
    IMAGE_BYTES,
    NAMES,
    SIDE,
    Form,
    batch,
    class_names,
)
from onecycle.datasets.layout import is_image, part_of
from onecycle.datasets.source import Contents, File, Image, Listing, Reader
from onecycle.errors import DataError, few, one_line
from onecycle.files import disk_errors, sha256_bytes

ENOUGH = 2  # files of a form in one folder by which it is recognised, so that a lost one is named
NAMES_LIMIT = 2**20  # bytes of a file with the names of classes
EXTRA_BYTES = 128  # an image's label and file name in a python batch, at most
CHUNK = 1000  # images whose channels are moved at once

# The files that are needed, each with its content, in whatever order they come.
Files = Generator[tuple[str, bytes]]


def find(path: Path) -> list[tuple[Form, Path]]:
    """The forms whose files are in the folder `path`, or in its folder of the published name."""
    with disk_errors(path, "read"):
        return [
            (form, place)
            for form in FORMS
            for place in (path, path / form.folder)
            if sum((place / name).is_file() for name in form.files()) >= ENOUGH
        ]


def find_packed(path: Path) -> tuple[Form, str] | None:
    """The form whose files are in the archive at `path`, and their folder in it; None if none is.

    It reads no further than it must. Raises DataError for a damaged archive.
    """
    found: dict[tuple[str, str], int] = {}
    images = 0
    with damage(path), closing(entries(path)) as listing:
        for entry, _, _ in listing:
            folder, name = _place(entry)
            images += is_image(name)
            if images > ENOUGH or (images and any(map(part_of, folder.split("/")[-2:]))):
                return None  # these are pictures
            for form in FORMS:
                if name in form.files():
                    key = (form.folder, folder)
                    found[key] = found.get(key, 0) + 1
                    if found[key] == ENOUGH:
                        return form, folder
    return None


def listing(folder: Path, form: Form, labels: str) -> Listing:
    """The needed files of the form in `folder`; DataError naming those that are missing."""
    with disk_errors(folder, "read"):
        present = [name for name in form.needed(labels) if (folder / name).is_file()]
        _check_complete(folder, form, labels, present)
        status = [(name, (folder / name).stat()) for name in present]
    return Listing([File(name, folder / name, s.st_size, s.st_mtime_ns) for name, s in status])


def read(folder: Path, form: Form, labels: str) -> Reader:
    """The images of the form in `folder`, file by file. DataError for what can't be used."""
    hashes: dict[str, str] = {}

    def contents() -> Files:
        for file in listing(folder, form, labels).files:
            _check_size(folder, form, labels, file.name, file.size)
            with disk_errors(file.path, "read"), open(file.path, "rb") as stream:
                content = stream.read(file.size)
            hashes[file.name] = sha256_bytes(content)
            yield file.name, content

    classes = yield from _images(folder, form, labels, contents())
    yield Contents(classes, numbered=True, hashes=hashes)


def read_packed(path: Path, form: Form, inside: str, labels: str) -> Reader:
    """The images of the form in the archive at `path`, in its folder `inside`, file by file.

    Each byte of the archive is hashed when it is read, so that the hashes are of what the images
    were made from. DataError for what can't be used.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def watch(block: bytes) -> None:
        md5.update(block)
        sha256.update(block)

    def contents() -> Files:
        needed, present = form.needed(labels), set[str]()
        with damage(path), closing(entries(path, watch)) as listing:
            for entry, size, content in listing:
                folder, name = _place(entry)
                if name not in needed or folder != inside:
                    continue
                if name in present:
                    raise DataError(f"{path}: {name} is there twice: get the original archive")
                present.add(name)
                _check_size(path, form, labels, name, size)
                yield name, content()
        _check_complete(path, form, labels, present)

    classes = yield from _images(path, form, labels, contents())
    name = NAMES.get(md5.hexdigest(), "")
    if name and labels == "coarse":
        name = f"{name} (coarse)"
    yield Contents(classes, name, numbered=True, hashes={"": sha256.hexdigest()})


def _images(
    path: Path, form: Form, labels: str, contents: Files
) -> Generator[Image, None, dict[str | int, str]]:
    """The images in `contents`, named so that they sort in the published order; the classes."""
    chosen = form.chosen(labels)
    classes: list[str] = []
    with closing(contents):
        for name, content in contents:
            try:
                if name == chosen.names:
                    classes = class_names(form, chosen, content)
                    continue
                pixels, found = batch(form, chosen, content)
            except Exception as error:  # damaged bytes raise nearly anything
                reason = one_line(error) if isinstance(error, ValueError) else "damaged"
                raise DataError(
                    f"{path}: {name} can't be used ({reason}): get the original again"
                ) from error
            split, number = ("test", 0) if name == form.test else ("train", form.train.index(name))
            for start in range(0, len(pixels), CHUNK):
                chunk = pixels[start : start + CHUNK].reshape(-1, CHANNELS, SIDE, SIDE)
                chunk = np.ascontiguousarray(chunk.transpose(0, 2, 3, 1))
                for i, image in enumerate(chunk, start):
                    yield Image(split, int(found[i]), f"{number}/{i:05d}", image)
    return dict(enumerate(classes))


def _place(entry: str) -> tuple[str, str]:
    """Folder and name of an archive's entry, both empty for one that leads outside."""
    parts = [part for part in entry.split("/") if part not in ("", ".")]
    if entry.startswith("/") or ".." in parts or not parts:
        return "", ""
    return "/".join(parts[:-1]), parts[-1]


def _check_complete(path: Path, form: Form, labels: str, present: Iterable[str]) -> None:
    missing = [name for name in form.needed(labels) if name not in present]
    if missing:
        raise DataError(f"{path}: {few(missing)} missing: get the original {form.folder} again")


def _check_size(path: Path, form: Form, labels: str, name: str, size: int) -> None:
    limit = form.limit * (IMAGE_BYTES + EXTRA_BYTES)
    if name == form.chosen(labels).names:
        limit = NAMES_LIMIT
    if size > limit:
        raise DataError(
            f"{path}: {name} has {size:,} bytes, over the limit of {limit:,}: "
            "get the original again"
        )
