"""What the cache reads a data set from, whatever the format: its files, and its images in turn."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class File:
    """A file on disk that makes up a data set, and what tells whether it has changed."""

    name: str  # below the folder; empty for an archive, which is the same under any name
    path: Path
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """The files of a data set, and what is to be told of those that are none of it."""

    files: list[File]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """One image: `pixels` (H, H, 3) uint8, or why it can't be used.

    `label` is one of the keys of the `Contents` that come after all images. A split's images are
    put in the order of their names.
    """

    split: str
    label: str | int
    name: str
    pixels: Pixels | str


@dataclass(frozen=True)
class Contents:
    """What is known once every image was read.

    `classes` maps the images' labels to the names of the classes, in the classes' order. `name`
    is the data set's, if it was recognised. `numbered`: the images have no names of their own and
    get `<split>/<position>`. `hashes`, by `File.name`: SHA-256 of the files as they were read.
    `drawn` and `notes` are those of `Dataset`.
    """

    classes: Mapping[str | int, str]
    name: str = ""
    numbered: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)
    drawn: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Again:
    """What came until now is void: all images come anew, at another size."""


Reader = Generator[Image | Again | Contents]  # `Contents` last


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    `labels` and `image_size` tell apart what the same files can be read as.
    """

    path: Path
    labels: str
    listing: Callable[[], Listing]
    read: Callable[[], Reader]
    image_size: int | None = None  # pixels to which images are brought; None: their own choice
