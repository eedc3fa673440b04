"""How many images a second a DavidNet step trains on, against the plain way, in one process.

The plain way is what a first PyTorch script does: fp32, contiguous NCHW, batch norm over the whole
batch. Both ways compute the same network on the same batch of 512; ours augments, too. They take
turns, a step each, and the ratios of the turns are the result.

usage: python bench/step_speed.py [--rounds 5] [--threads 2] [--precision auto]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle import machine
from onecycle.datasets.dataset import Dataset, Split
from onecycle.recipe import book
from onecycle.training import state as states
from onecycle.training.loop import fit

BATCH = 512


def noise() -> Dataset:
    """Random images: speed does not depend on what they show."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    split = Split(pixels, np.arange(BATCH), draw.integers(0, 10, BATCH))
    return Dataset("noise", tuple("0123456789"), split, split, "noise")


class Contiguous(nn.Module):
    """Another module's output, laid out as contiguous NCHW."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Shape unchanged."""
        y: Tensor = self.inner(x)
        return y.contiguous()


def plain(data: Dataset, where: machine.Machine) -> Callable[[], None]:
    """A step of the plain way."""
    recipe = book.change(book.find("davidnet"), ["ghost_batch=0"])
    model = states.create(recipe, data, where, seed=0).model
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.normalize = Contiguous(model.normalize)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters())
    pixels, labels = torch.from_numpy(data.train.pixels), torch.from_numpy(data.train.labels)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(pixels), labels))
        optimizer.step()

    return step


def ours(data: Dataset, where: machine.Machine, ghost_batch: int) -> Callable[[], None]:
    """A step of `fit`, its augmentation included."""
    changes = [f"ghost_batch={ghost_batch}", "epochs=1000"]
    recipe = book.change(book.find("davidnet"), changes)
    steps = fit(states.create(recipe, data, where, seed=0), data, recipe, where, seed=0)
    return lambda: float(next(steps).loss) and None


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    where = machine.choose("cpu", options.precision, options.threads)
    data = noise()
    ways = {
        "plain": plain(data, where),
        "ghost batches of 128": ours(data, where, 128),
        "whole batch": ours(data, where, 0),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name, step in ways.items():
            start = time.perf_counter()
            step()
            if turn:  # the first warms up
                rates[name].append(BATCH / (time.perf_counter() - start))
    ratios = {
        name: [a / b for a, b in zip(rates[name], rates["plain"], strict=True)]
        for name in ways
        if name != "plain"
    }
    print(
        json.dumps(
            {
                "machine": where.describe(),
                "hardware": machine.device_name("cpu"),
                "images_per_second": {n: statistics.median(r) for n, r in rates.items()},
                "times_the_plain_way": {
                    name: {"median": statistics.median(r), "min": min(r), "max": max(r)}
                    for name, r in ratios.items()
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
