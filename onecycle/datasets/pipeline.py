"""The references' own kind of pipeline: Albumentations image by image, in a DataLoader's workers.

The choices are drawn as `augment` draws them, from the same distributions, though not the same
ones: they are a function of (seed, epoch, row of choices), whatever worker makes them.
"""

import os
import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Items

from onecycle.datasets.dataset import Split
from onecycle.errors import RecipeError, need
from onecycle.machine import usable_cores
from onecycle.recipe.schema import AugmentSpec

MOST_WORKERS = 8
ALBUMENTATIONS = 100  # a kind of random stream that `augment` has none of
AHEAD = 4  # batches that a worker makes before they are asked for


def check(spec: AugmentSpec) -> None:
    """MissingExtraError without the library, RecipeError for what it can't do."""
    _library()
    asked = spec.model_dump(exclude_defaults=True)
    for key in ("erasing", "policy", "colour", "brightness", "contrast", "mixup", "cutmix"):
        if key in asked:
            raise RecipeError(
                f"--augment-backend albumentations: it is for the references' pipeline, without "
                f"augment.{key}; leave one of the two out"
            )
    if spec.flip == "alternating":
        raise RecipeError(
            "--augment-backend albumentations: it has no alternating flip; "
            "--set augment.flip=random, or leave the option out"
        )


def transform(spec: AugmentSpec, size: int, fill: NDArray[np.uint8]) -> Any:
    """The Albumentations pipeline of `spec` for images of `size` pixels; `fill` is (3,) uint8."""
    library, steps = _library(), []
    if spec.pad:
        steps += [
            library.Pad(spec.pad, border_mode={"zero": 0, "reflect": 4}[spec.pad_mode], fill=0),
            library.RandomCrop(size, size),
        ]
    if spec.flip == "random":
        steps.append(library.HorizontalFlip(p=0.5))
    if spec.cutout:
        sides = [spec.cutout] if spec.cutout_side == "fixed" else range(1, spec.cutout + 1)
        squares = [_square(library, spec, side, size, fill) for side in sides]
        steps.append(library.OneOf(squares, p=spec.cutout_probability))
    return library.Compose(steps)


def batches(
    spec: AugmentSpec,
    split: Split,
    fill: NDArray[np.uint8],
    seed: int,
    epoch: int,
    parts: Iterable[tuple[Tensor, Tensor]],
    workers: int | None = None,
) -> Iterator[Tensor]:
    """The augmented images (n, H, W, 3) uint8 of each of `parts`.

    A part is positions in `split` (n,) and for each the row of choices (n,) that a plan would have
    for it: an image that comes twice looks different each time. `workers` processes make them
    ahead, by default one a core, at most `MOST_WORKERS`.
    """
    size = split.pixels.shape[1]
    images = _Images(split, transform(spec, size, fill), seed, epoch)
    workers = min(MOST_WORKERS, usable_cores()) if workers is None else workers
    loader: DataLoader[NDArray[np.uint8]] = DataLoader(
        images,
        batch_sampler=[torch.stack(part, dim=1).tolist() for part in parts],
        collate_fn=partial(_together, size),
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_one_thread,
    )
    yield from loader


class _Images(Items[NDArray[np.uint8]]):
    """A split's augmented images, by position and row of choices."""

    def __init__(self, split: Split, made: Any, seed: int, epoch: int) -> None:
        self._split, self._transform, self._key = split, made, (seed, epoch)

    def __getitem__(self, item: tuple[int, int]) -> NDArray[np.uint8]:
        (position, row), (seed, epoch) = item, self._key
        stream = np.random.Generator(
            np.random.Philox(key=[seed, epoch], counter=[0, 0, row, ALBUMENTATIONS])
        )
        # One stream for all steps: with a seed for each, as the library would, they'd be alike.
        self._transform.set_random_state(stream, random.Random(int(stream.integers(2**63))))
        image = self._split.pixels[self._split.rows[position]]
        result: NDArray[np.uint8] = self._transform(image=image)["image"]
        return result


def _square(library: Any, spec: AugmentSpec, side: int, size: int, fill: NDArray[np.uint8]) -> Any:
    """A filled square of `side`: inside the image, or at every place that touches it."""
    hole = library.CoarseDropout(
        num_holes_range=(1, 1),
        hole_height_range=(side, side),
        hole_width_range=(side, side),
        fill=tuple(float(value) for value in fill),
        p=1.0,
    )
    if spec.cutout_place == "inside":
        return hole
    return library.Sequential(
        [library.Pad(side - 1, fill=0), hole, library.CenterCrop(size, size)], p=1.0
    )


def _together(size: int, images: list[NDArray[np.uint8]]) -> Tensor:
    # Of several processes, one may have no part of a short batch.
    return torch.from_numpy(np.array(images, np.uint8).reshape(-1, size, size, 3))


def _one_thread(_worker: int) -> None:
    need("cv2", "albumentations", "--augment-backend albumentations").setNumThreads(0)


def _library() -> Any:
    # Else it asks the network for a newer version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return need("albumentations", "albumentations", "--augment-backend albumentations")
