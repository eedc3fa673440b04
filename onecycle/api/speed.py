"""How fast this machine is, and how fast each recipe trains on it."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from onecycle import machine, progress
from onecycle.api.recipes import choose_recipe, recipes
from onecycle.datasets.noise import noise
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.progress import duration
from onecycle.recipe.schema import Recipe
from onecycle.reporting import tables
from onecycle.run import estimate

CLASSES, SIZE = 10, 32  # of CIFAR-10's images
TRAIN, TEST = 50_000, 10_000
SIDE = {"cpu": 2048}  # of the matrices whose product is timed
SIDE_ON_ACCELERATOR = 8192
ALL_SECONDS = 45.0  # for all recipes together, unless even short steps take longer
FORWARD_AND_BACKWARD = 3  # times the operations of a forward pass


@dataclass(frozen=True)
class Speed:
    """How fast a recipe trains on images of 32 pixels."""

    recipe: str
    images_per_second: float
    operations: float  # to train on one image, two a multiply-add, on average over its sizes
    share: float  # of the machine's matrix rate in the precision that it computes in
    seconds: float  # of a whole run on data of CIFAR-10's size, evaluations included


@dataclass(frozen=True)
class Bench:
    """A machine's speed at bare matrices and memory, and at recipes; `str` gives the tables."""

    machine: machine.Machine
    hardware: str
    matrix_rates: dict[str, float]  # operations a second, by precision
    bandwidth: float  # bytes a second, read and written
    recipes: list[Speed]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "machine": self.machine.to_dict()}

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in self.matrix_rates.items())
        rows = [
            {
                "recipe": speed.recipe,
                "images/s": f"{speed.images_per_second:,.0f}",
                "GFLOP/image": f"{speed.operations / 1e9:.2f}",
                "of the rate": f"{speed.share:.0%}",
                "a run": duration(speed.seconds),
            }
            for speed in self.recipes
        ]
        right = {"images/s", "GFLOP/image", "of the rate", "a run"}
        return "\n".join(
            [
                f"machine      {self.hardware}; {self.machine.describe()}",
                f"matrices     {rates} TFLOP/s",
                f"memory       {self.bandwidth / 1e9:.1f} GB/s",
                "",
                tables.text(rows, right),
                "",
                f"A run: {TRAIN:,} training and {TEST:,} test images of {SIZE} pixels, "
                "evaluations included.",
            ]
        )


def bench(
    recipe: str | Recipe | Iterable[str | Recipe] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Bench:
    """Measure the machine, and the training speed of `recipe`: one, several, or all there are.

    Trains throw-away models for a few steps on noise, in under a minute in all. A recipe's share of
    the matrix rate counts three times the operations of its forward pass. Progress goes to stderr
    unless `quiet`. Raises RecipeError.
    """
    if recipe is None:
        chosen = recipes()
    else:
        asked = [recipe] if isinstance(recipe, str | Recipe) else recipe
        chosen = [choose_recipe(each, "", None, ()) for each in asked]
    where = machine.choose(device, precision, threads)
    show = progress.Show(quiet)
    show.note("timing matrix products and memory")
    side = SIDE.get(where.device, SIDE_ON_ACCELERATOR)
    names = list(dict.fromkeys(("fp32", "bf16", where.precision)))
    dtypes = [machine.DTYPES[name] for name in names]
    rates = dict(zip(names, machine.matrix_rates(dtypes, where.device, side), strict=True))
    bandwidth = machine.bandwidth(where.device)
    speeds, end = [], time.monotonic() + ALL_SECONDS
    for number, each in enumerate(chosen):
        show.note(f"timing {each.name} ({number + 1} of {len(chosen)})")
        until = time.monotonic() + (end - time.monotonic()) / (len(chosen) - number)
        speeds.append(_speed(each, where, rates[where.precision], until))
    return Bench(where, machine.device_name(where.device), rates, bandwidth, speeds)


def _speed(recipe: Recipe, where: machine.Machine, matrix_rate: float, until: float) -> Speed:
    """How fast `recipe` trains on `where`, which multiplies matrices at `matrix_rate`.

    Steps are as large as lets one warm up and one be timed `until` then.
    """
    data = noise(CLASSES, SIZE)
    operations = sum(
        part * _operations(recipe, round(SIZE * share)) for part, share in estimate.phases(recipe)
    )
    per_image = estimate.image_seconds(recipe, data, where, until - time.monotonic())
    return Speed(
        recipe=recipe.name,
        images_per_second=1 / per_image,
        operations=operations,
        share=operations / per_image / matrix_rate,
        seconds=estimate.run_seconds(recipe, per_image, TRAIN, TEST),
    )


def _operations(recipe: Recipe, size: int) -> float:
    """Those of a training step for one image of `size` pixels."""
    with torch.device("meta"):
        layers = anatomy.layers(build(recipe.model, noise(CLASSES, SIZE), seed=0), size)
    return 2.0 * FORWARD_AND_BACKWARD * sum(layer.multiply_adds for layer in layers)
