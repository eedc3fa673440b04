"""Where a training's batches come from: gathered out of the pixels, or from a loader's workers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from onecycle.datasets import augment, pipeline
from onecycle.datasets.dataset import Dataset
from onecycle.errors import RecipeError
from onecycle.recipe.schema import AugmentSpec

BACKENDS = ("own", "albumentations")
FREE_SHARE = 0.5  # of a GPU's free memory that the pixels may take, if nobody says how much


@dataclass(frozen=True)
class Feed:
    """The augmented batches of a data set's training part.

    All pixels are put on `device` if they take at most `max_memory` bytes there. Else they stay
    where they are, memory-mapped, and each batch is gathered from there; the images are the same.
    For a CPU they stay there in any case: the system keeps as much of the file as there is room.
    """

    spec: AugmentSpec
    dataset: Dataset
    device: str
    seed: int
    backend: str = "own"
    max_memory: int | None = None

    def batches(
        self, epoch: int, plan: augment.Plan, parts: Iterable[Tensor]
    ) -> Iterator[Callable[[slice], Tensor]]:
        """For each of `parts`, places in the plan's order, what gives the images of a slice of it.

        These are (n, H, W, 3) on the device, where the plan is already, uint8, or fp32 as
        `augment.given` has it. Several threads may ask, each for its slice.
        """
        fill = augment.fill_colour(self.spec, self.dataset.mean)
        if self.backend == "albumentations":
            order, choice = plan.order.cpu(), plan.choice.cpu()
            made = pipeline.batches(
                self.spec,
                self.dataset.train,
                fill.numpy(),
                self.seed,
                epoch,
                [(order[places], choice[places]) for places in parts],
            )
            yield from (images.to(self.device).__getitem__ for images in made)
            return
        fill = fill.to(self.device)
        for places in parts:
            yield partial(self._given, plan, fill, places.to(self.device))

    def _given(self, plan: augment.Plan, fill: Tensor, places: Tensor, mine: slice) -> Tensor:
        """The images at `mine` of `places`."""
        return augment.given(self.spec, self._originals, plan, places[mine], fill)

    def _originals(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels on the device, and which of them are the images at `positions`."""
        if self._resident is not None:
            return self._resident, self._rows[positions]
        rows = self._rows[positions].cpu()
        pixels = torch.from_numpy(self.dataset.train.pixels).index_select(0, rows)
        return pixels.to(self.device), torch.arange(len(rows), device=self.device)

    @cached_property
    def _rows(self) -> Tensor:
        return torch.from_numpy(self.dataset.train.rows).to(self.device)

    @cached_property
    def _resident(self) -> Tensor | None:
        """All pixels on the device; None if they take too much there."""
        pixels, room = torch.from_numpy(self.dataset.train.pixels), self.max_memory
        if room is None and self.device == "cuda":
            # What torch holds without using it, from the estimate before the run, is free too.
            idle = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            room = int(FREE_SHARE * (torch.cuda.mem_get_info()[0] + idle))
        if room is not None and pixels.nbytes > room:
            return None
        return pixels.to(self.device)  # on a CPU that is no copy, and they stay memory-mapped


def check(backend: str, spec: AugmentSpec) -> None:
    """RecipeError for a backend that there isn't, or that can't do what `spec` asks for."""
    if backend not in BACKENDS:
        raise RecipeError(f"--augment-backend {backend}: choose {' or '.join(BACKENDS)}")
    if backend == "albumentations":
        pipeline.check(spec)
