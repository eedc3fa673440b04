"""What a recipe is before it is trained: its network, its schedule, and its time here."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from onecycle import files, machine
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.datasets.decode import LARGEST, SMALLEST
from onecycle.datasets.noise import noise
from onecycle.errors import RecipeError
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.progress import duration
from onecycle.recipe.schema import Recipe
from onecycle.reporting import architecture, cycle, plots
from onecycle.run import estimate
from onecycle.training.schedule import Timetable, timetable

TRAIN, TEST = 50_000, 10_000  # images of CIFAR-10
ARCHITECTURE, SCHEDULE = "architecture.png", "schedule.png"


@dataclass(frozen=True)
class Summary:
    """A recipe's network, schedule and cost for CIFAR-10-sized data; `str` gives the table."""

    recipe: Recipe
    classes: int
    image_size: int
    layers: list[anatomy.Layer]
    timetable: Timetable
    seconds: float  # of the whole run on `machine`
    machine: machine.Machine

    @property
    def parameters(self) -> int:
        """How many numbers the network learns."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Those of convolutions and matrix products, for one image, forward."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate at the first step, the highest one, and that at the last step."""
        rates = self._rates()
        return {"start": rates[0], "peak": max(rates), "final": rates[-1]}

    def _layers(self) -> list[dict[str, Any]]:
        return [asdict(layer) for layer in self.layers]

    def _rates(self) -> list[float]:
        return [self.timetable.lr(step) for step in range(self.timetable.total_steps)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        layers = self._layers()
        return {
            "recipe": self.recipe.name,
            "recipe_digest": self.recipe.digest(),
            "classes": self.classes,
            "image_size": self.image_size,
            **architecture.totals(layers),
            "layers": layers,
            "epochs": self.recipe.sized(TRAIN).epochs,
            "steps_per_epoch": self.timetable.steps_per_epoch,
            "steps": self.timetable.total_steps,
            "rates": self.rates,
            "seconds": round(self.seconds, 1),
            "machine": self.machine.to_dict(),
        }

    def __str__(self) -> str:
        table, rates = self.timetable, self._rates()
        top = rates.index(max(rates)) + 1
        return "\n".join(
            [
                architecture.table(self._layers()),
                "",
                f"recipe    {self._title()}",
                f"steps     {table.total_steps:,}, {table.steps_per_epoch:,} an epoch of "
                f"{TRAIN:,} images, batch {self.recipe.batch_size}",
                f"rate      {rates[0]:.4g} at first, {max(rates):.4g} at step {top:,} (epoch "
                f"{top / table.steps_per_epoch:.3g}), {rates[-1]:.4g} at last",
                f"time      about {duration(self.seconds)} for data of CIFAR-10's size on "
                f"{self.machine.describe()}",
            ]
        )

    def _title(self) -> str:
        return (
            f"{self.recipe.name} ({self.recipe.digest()}), {self.recipe.model.name} for "
            f"{self.classes} classes, images of {self.image_size} pixels"
        )

    def draw(self, folder: Path) -> None:
        """Write the network and the schedule as pictures into `folder`. Raises DiskError."""
        files.make_folder(folder)
        cost = f"{self.parameters:,} parameters, {self.multiply_adds / 1e6:,.1f} M multiply-adds"
        picture = architecture.picture(self._layers(), f"{self._title()}: {cost} an image")
        plots.save(picture, folder / ARCHITECTURE)
        plots.save(self.schedule_figure(), folder / SCHEDULE)

    def schedule_figure(self) -> Figure:
        """The rate and each optimizer's momentum by step and epoch."""
        return draw_schedule(self.recipe, self.timetable, TRAIN)


def draw_schedule(recipe: Recipe, table: Timetable, images: int) -> Figure:
    """The rate and each optimizer's momentum by step and epoch of so many `images`."""
    steps = range(table.total_steps)
    momenta: dict[str, list[float]] = {}
    for kind in dict.fromkeys(group.optimizer for group in recipe.groups):
        base = getattr(recipe.optimizers, kind).momentum
        momenta[kind] = [table.momentum(step, base) for step in steps]
    epochs = recipe.sized(images).epochs
    title = f"{plots.literal(recipe.name)}, {epochs:g} epochs of {images:,} images"
    return cycle.schedule([table.lr(step) for step in steps], momenta, table.steps_per_epoch, title)


def summary(
    recipe: str | Recipe,
    classes: int = 10,
    image_size: int = 32,
    *,
    epochs: float | None = None,
    settings: Settings = (),
    plot: str | Path | None = None,
) -> Summary:
    """What training `recipe` would mean, without data: layers, schedule, time on this machine.

    `epochs` and `settings` change the recipe as in `train`. The time is measured on a few steps
    of throw-away training, for 50,000 training and 10,000 test images. `plot` names a folder for
    `architecture.png` and `schedule.png`. Raises RecipeError, DiskError.
    """
    chosen = choose_recipe(recipe, "", epochs, settings)
    if not 2 <= classes <= TRAIN:
        raise RecipeError(f"--classes {classes}: give 2 to {TRAIN:,}")
    if not SMALLEST <= image_size <= LARGEST:
        raise RecipeError(f"--image-size {image_size}: give {SMALLEST} to {LARGEST} pixels")
    data = noise(classes, image_size)
    with torch.device("meta"):
        layers = anatomy.layers(build(chosen.model, data, seed=0), image_size)
    where = machine.choose()
    per_image = estimate.image_seconds(chosen, data, where)
    made = Summary(
        recipe=chosen,
        classes=classes,
        image_size=image_size,
        layers=layers,
        timetable=timetable(chosen, TRAIN),
        seconds=estimate.run_seconds(chosen, per_image, TRAIN, TEST),
        machine=where,
    )
    if plot is not None:
        made.draw(Path(plot))
    return made
