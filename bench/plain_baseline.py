"""What a user would do instead: images a second of davidnet, trained the plain way on a CPU.

Albumentations image by image in a DataLoader's workers, fp32, contiguous NCHW, batch norm over the
whole batch of 512; all of it torch's and Albumentations' own. Time to equal accuracy is the steps
that the plain way needs (24 epochs), times the batch, by its images/s. For a fair ratio run it in
turn with what it is compared with (side_by_side.py).

usage: python bench/plain_baseline.py [--steps 4] [--batch 512] [--workers N] [--threads N]
           [--width 64] [--recipe davidnet-reflect]
"""

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle import machine
from onecycle.datasets import augment, pipeline
from onecycle.datasets.dataset import Dataset, Split
from onecycle.model.build import build
from onecycle.model.layers import GhostBatchNorm
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe

TRAIN = 50_000  # images of CIFAR-10


def noise(images: int) -> Dataset:
    """Random images: speed does not depend on what they show."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(images), draw.integers(0, 10, images))
    return Dataset("noise", tuple("0123456789"), split, split, "noise")


def plain_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """The recipe's network of torch's layers, contiguous, for standardized (N, 3, H, W)."""
    model = build(recipe.model, data, seed=0)
    model.normalize = nn.Identity()
    for name, module in list(model.named_modules()):
        if isinstance(module, GhostBatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, nn.BatchNorm2d(len(module.weight)))
    return model.to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]


def loaded(recipe: Recipe, data: Dataset, steps: int, workers: int) -> Iterator[Tensor]:
    """Augmented, standardized batches (N, 3, H, W) fp32 from a loader's workers."""
    fill = augment.fill_colour(recipe.augment, data.mean).numpy()
    mean, std = (torch.tensor(part, dtype=torch.float32) for part in (data.mean, data.std))
    order = torch.arange(steps * recipe.batch_size) % len(data.train)
    parts = [(part, part) for part in order.split(recipe.batch_size)]
    for images in pipeline.batches(recipe.augment, data.train, fill, 0, 0, parts, workers):
        yield ((images.float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def images_per_second(recipe: Recipe, data: Dataset, steps: int, workers: int) -> float:
    """Trains on `steps` batches after one that warms up."""
    model = plain_model(recipe, data)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=5e-4)
    labels = torch.from_numpy(data.train.labels[: recipe.batch_size])
    start = 0.0
    for number, images in enumerate(loaded(recipe, data, steps + 1, workers)):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if number == 0:
            start = time.perf_counter()
    return steps * recipe.batch_size / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=machine.usable_cores())
    parser.add_argument("--threads", type=int)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--recipe", default="davidnet-reflect")
    options = parser.parse_args(arguments)
    changes = [f"batch_size={options.batch}", f"model.width={options.width}", "ghost_batch=0"]
    recipe = book.change(book.find(options.recipe), changes)
    pipeline.check(recipe.augment)
    where = machine.choose("cpu", "fp32", options.threads)
    rate = images_per_second(recipe, noise(options.batch), options.steps, options.workers)
    print(
        json.dumps(
            {
                "hardware": machine.device_name("cpu"),
                "threads": where.threads,
                "workers": options.workers,
                "recipe": recipe.name,
                "batch": options.batch,
                "epochs": recipe.epochs,
                "images_per_second": rate,
                "seconds_of_training": recipe.epochs * TRAIN / rate,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
