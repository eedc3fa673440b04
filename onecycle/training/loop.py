"""The training loop: a generator that yields after each completed step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onecycle.datasets import augment
from onecycle.datasets.dataset import Dataset
from onecycle.errors import RecipeError
from onecycle.machine import Machine
from onecycle.model.layers import group_sizes, norms
from onecycle.recipe.schema import Recipe
from onecycle.training import optim
from onecycle.training.schedule import Timetable, timetable
from onecycle.training.state import TrainState


@dataclass(frozen=True)
class Step:
    """What a completed step saw. `loss` and `correct` are scalars that stay on the device."""

    step: int  # completed steps, this one included
    epoch: int  # from 0
    lr: float
    loss: Tensor  # mean over the batch
    correct: Tensor  # images whose largest logit was their label's
    images: int


def fit(
    state: TrainState,
    dataset: Dataset,
    recipe: Recipe,
    machine: Machine,
    seed: int,
    table: Timetable | None = None,
) -> Iterator[Step]:
    """Train `state` in place from its step to the end of the recipe, yielding after each step.

    The rates and the length are those of `table`, by default the recipe's own timetable. What
    happens at a step is a function of (recipe, data, seed, table, step) and the state, so that
    breaking off, saving and going on changes nothing. Raises RecipeError if the recipe's padding
    or cutout doesn't fit the images.
    """
    table = table or timetable(recipe, len(dataset.train))
    check_sizes(recipe, dataset)
    pixels = torch.from_numpy(dataset.train.pixels).to(machine.device)
    rows = torch.from_numpy(dataset.train.rows)
    labels = torch.from_numpy(dataset.train.labels)
    colour = np.rint(dataset.mean) if recipe.augment.cutout_fill == "mean" else np.zeros(3)
    fill = torch.tensor(colour, dtype=torch.uint8, device=machine.device)
    epoch, plan = -1, None
    while state.step < table.total_steps:
        if plan is None or epoch != table.epoch(state.step):
            epoch = table.epoch(state.step)
            plan = augment.draw(recipe.augment, len(dataset.train), dataset.image_size, seed, epoch)
            order = plan.order
            plan = plan.to(machine.device)
        first = (state.step % table.steps_per_epoch) * recipe.batch_size
        batch = order[first : first + recipe.batch_size]
        images = augment.apply(
            recipe.augment,
            pixels,
            rows[batch].to(machine.device),
            batch.to(machine.device),
            plan,
            fill,
        )
        lr = optim.set_rates(state.optimizers, table, state.step)
        loss, correct = _gradients(
            state, recipe, machine, images, labels[batch].to(machine.device), seed
        )
        _update(state, machine, len(batch))
        yield Step(state.step, epoch, lr, loss, correct, len(batch))


def check_sizes(recipe: Recipe, dataset: Dataset) -> None:
    """RecipeError if the recipe's padding or cutout doesn't fit the images."""
    size = dataset.image_size
    for key, value in (("pad", recipe.augment.pad), ("cutout", recipe.augment.cutout)):
        if value >= size:
            raise RecipeError(
                f"recipe {recipe.name}: augment.{key} {value} is too large for images of "
                f"{size} pixels; --set augment.{key}=... below that"
            )


def pieces(images: int, ghost_batch: int, at_once: int) -> list[tuple[int, int]]:
    """How a batch is cut: pieces of (images, ghost groups), computed one after another.

    The groups are as equal as can be and their sizes depend on the recipe alone; the machine's
    `at_once` only decides how many of them are computed together.
    """
    groups = -(-images // ghost_batch) if ghost_batch else 1
    sizes = group_sizes(images, groups)
    together = max(1, at_once // sizes[0])
    return [
        (sum(sizes[i : i + together]), len(sizes[i : i + together]))
        for i in range(0, groups, together)
    ]


def _gradients(
    state: TrainState, recipe: Recipe, machine: Machine, images: Tensor, labels: Tensor, seed: int
) -> tuple[Tensor, Tensor]:
    """Add the batch's gradients to the parameters; its mean loss and correct count, scalars."""
    total = len(images)
    loss = torch.zeros((), device=machine.device)
    correct = torch.zeros((), dtype=torch.int64, device=machine.device)
    state.model.train()
    # Dropout is drawn per group, so then each group is computed by itself.
    at_once = 1 if recipe.model.dropout else machine.piece
    start = 0
    for group, (count, groups) in enumerate(pieces(total, recipe.ghost_batch, at_once)):
        piece = slice(start, start + count)
        start += count
        for norm in norms(state.model):
            norm.groups = groups
        with _dropout_stream(recipe, seed, state.step, group), machine.autocast():
            logits = state.model(images[piece])
        piece_loss = F.cross_entropy(
            logits, labels[piece], reduction="sum", label_smoothing=recipe.label_smoothing
        ).div(total)
        torch.autograd.backward(piece_loss * machine.loss_scale)
        loss += piece_loss.detach()
        correct += (logits.detach().argmax(1) == labels[piece]).sum()
    return loss, correct


@contextmanager
def _dropout_stream(recipe: Recipe, seed: int, step: int, group: int) -> Iterator[None]:
    """Inside, dropout draws from (seed, step, group); the global random state is left alone."""
    if not recipe.model.dropout:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, step, group]).generate_state(1)[0]))
        yield


def _update(state: TrainState, machine: Machine, images: int) -> None:
    """Move the running statistics and the weights, and count the step."""
    for norm in norms(state.model):
        norm.fold(images)
    for optimizer in state.optimizers:
        if machine.loss_scale != 1:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad.div_(machine.loss_scale)
        optimizer.step()
        optimizer.zero_grad()
    state.step += 1
