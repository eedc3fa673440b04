"""The one type that every source of images ends in."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onecycle.errors import RecipeError

CHUNK = 4096  # images whose sums are taken at once


@dataclass(frozen=True)
class Split:
    """Images with labels: rows of an array that may be far larger than memory.

    `pixels` (M, H, W, 3) uint8, often memory-mapped; `rows` (N,) int64, which of its images
    belong here and in what order; `labels` (N,) int64; `names` (N,) the file names, or empty.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Images `start` to `stop` as (n, H, W, 3) uint8."""
        return self.pixels[self.rows[start:stop]]

    def subset(self, keep: NDArray[np.int64]) -> "Split":
        """The images at positions `keep`, in that order."""
        names = tuple(self.names[i] for i in keep) if self.names else ()
        return Split(self.pixels, self.rows[keep], self.labels[keep], names)


@dataclass(frozen=True)
class Dataset:
    """A training and a test part, and perhaps a validation part held out of the training part.

    `digest` is of the pixels, labels and class names, whatever files they came in. `skipped` has a
    line `name (reason)` for each image that was left out because it can't be used. `drawn`: the
    test part was drawn from pictures that came without one. `notes` say what else was decided.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    digest: str
    source: str = ""
    val: Split | None = field(default=None)
    skipped: tuple[str, ...] = ()
    drawn: bool = False
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.train.pixels.shape[1])

    @property
    def untested(self) -> tuple[str, ...]:
        """The classes without a test image."""
        present = set(self.test.labels.tolist())
        return tuple(name for label, name in enumerate(self.classes) if label not in present)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each channel over the training part, (3,), on the 0-255 scale."""
        return self._moments[0]

    @cached_property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of each channel over the training part, (3,), on the 0-255 scale."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts = np.zeros((3, 256), dtype=np.int64)
        for start in range(0, len(self.train), CHUNK):
            chunk = self.train.images(start, start + CHUNK)
            for channel in range(3):
                counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
        weights = counts / counts.sum(axis=1, keepdims=True)
        values = np.arange(256)
        mean = weights @ values
        return mean, np.sqrt(weights @ values**2 - mean**2)

    def hold_out(self, fraction: float, seed: int) -> "Dataset":
        """The same data with a stratified `fraction` of the training part as validation part.

        Raises RecipeError if a class would be left without training or validation images, or the
        data has a validation part.
        """
        if self.val:
            raise RecipeError(
                f"--val-fraction {fraction:g}: the data has a validation part of {len(self.val):,} "
                "images: leave the option out"
            )
        if not 0 < fraction < 1:
            raise RecipeError(f"--val-fraction {fraction:g}: give a number between 0 and 1")
        draw = np.random.Generator(np.random.Philox(key=seed))
        held: list[NDArray[np.int64]] = []
        for label, name in enumerate(self.classes):
            members = np.flatnonzero(self.train.labels == label)
            count = round(fraction * len(members))
            if not 0 < count < len(members):
                raise RecipeError(
                    f"--val-fraction {fraction:g}: class '{name}' has {len(members)} training "
                    f"images, of which {count} would be held out; choose another fraction"
                )
            held.append(draw.permutation(members)[:count])
        chosen = np.sort(np.concatenate(held))
        rest = np.setdiff1d(np.arange(len(self.train)), chosen)
        return replace(self, train=self.train.subset(rest), val=self.train.subset(chosen))


def digest(classes: tuple[str, ...], train: Split, test: Split, val: Split | None = None) -> str:
    """Hex SHA-256 of class names, image shape, and each part's labels and pixels in its order."""
    parts = (train, test, val) if val else (train, test)
    header = {
        "classes": classes,
        "shape": train.pixels.shape[1:],
        "counts": tuple(map(len, parts)),
    }
    total = hashlib.sha256(json.dumps(header).encode())
    for split in parts:
        total.update(split.labels.astype("<i8").tobytes())
        for start in range(0, len(split), CHUNK):
            total.update(split.images(start, start + CHUNK).tobytes())
    return total.hexdigest()
