"""The training loop: a generator that yields after each completed step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.allocator import keeping
from onecycle.datasets import augment
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.feed import Feed
from onecycle.datasets.mixing import Answers
from onecycle.datasets.pixels import resized
from onecycle.errors import RecipeError
from onecycle.machine import Machine
from onecycle.model.build import NETWORKS
from onecycle.model.layers import group_count, group_sizes, norms
from onecycle.ranks import ALONE, Ranks
from onecycle.recipe.schema import Recipe
from onecycle.training import optim
from onecycle.training.lanes import Lanes
from onecycle.training.muon import Muon
from onecycle.training.schedule import Timetable, side, timetable
from onecycle.training.state import TrainState


@dataclass(frozen=True)
class Step:
    """What a completed step saw. `loss` and `correct` are scalars that stay on the device."""

    step: int  # completed steps, this one included
    epoch: int  # from 0
    lr: float
    loss: Tensor  # mean over the batch; not finite if the step was dropped
    correct: Tensor  # images whose largest logit was their label's
    images: int


def fit(
    state: TrainState,
    dataset: Dataset,
    recipe: Recipe,
    machine: Machine,
    seed: int,
    table: Timetable | None = None,
    ranks: Ranks = ALONE,
    feed: Feed | None = None,
) -> Iterator[Step]:
    """Train `state` in place from its step to the end of the recipe, yielding after each step.

    The rates and the length are those of `table`, by default the recipe's own timetable. What
    happens at a step is a function of (recipe, data, seed, table, step) and the state, so that
    breaking off, saving and going on changes nothing. Several processes see together the images
    that one would see, each its share of whole ghost groups. The images come from `feed`, by
    default this package's own augmentation.

    A step whose loss or gradient is not finite is dropped, and all that follow it: weights, moments
    and running statistics stay as the step before left them, without the device being waited for.
    Raises RecipeError if the recipe's padding or cutout doesn't fit the images, or its ghost groups
    not the processes.
    """
    recipe = recipe.sized(len(dataset.train), dataset.image_size)
    table = table or timetable(recipe, len(dataset.train))
    check_sizes(recipe, dataset)
    check_groups(recipe, ranks)
    feed = feed or Feed(recipe.augment, dataset, machine.device, seed)
    labels = torch.from_numpy(dataset.train.labels).to(machine.device)
    weights = None
    if recipe.balance == "weights":
        weights = class_weights(dataset).to(machine.device)
    dropped = torch.zeros((), dtype=torch.bool, device=machine.device)
    epoch = -1
    with keeping(machine.device), Lanes(state.model, recipe, machine, ranks) as lanes:
        while state.step < table.total_steps:
            step = state.step % table.steps_per_epoch  # of the epoch
            if epoch != table.epoch(state.step):
                epoch = table.epoch(state.step)
                alike = dataset.train.labels if recipe.balance == "sampling" else None
                plan = augment.draw(
                    recipe.augment, len(dataset.train), dataset.image_size, seed, epoch, alike
                ).to(machine.device)
                batches = torch.split(torch.arange(len(plan.order)), recipe.batch_size)
                batches = batches[: table.steps_per_epoch]
                parts = [share(len(batch), recipe.ghost_batch, ranks) for batch in batches]
                places = [batch[part.images] for batch, part in zip(batches, parts, strict=True)]
                upcoming = feed.batches(epoch, plan, places[step:])
            with lanes.alone():
                batch, part, mine = batches[step], parts[step], places[step].to(machine.device)
                size = side(recipe, dataset.image_size, state.step / table.steps_per_epoch)
                lr = optim.set_rates(state.optimizers, table, state.step)
                work = _Work(recipe, machine, ranks, seed, state.step, len(batch), size, weights)
                answers = augment.answers(labels, plan, mine)
                loss, correct = found = _in_lanes(work, lanes, part, next(upcoming), answers)
                dropped = _update(work, state, lanes, found, dropped)
            # A gradient can be lost without the loss: then the loss tells of it, too.
            told = torch.where(dropped & torch.isfinite(loss), torch.nan, loss)
            yield Step(state.step, epoch, lr, told, correct, work.images)


@dataclass(frozen=True)
class Share:
    """A process's or lane's part of a batch: `images` of it, in ghost groups of `sizes`."""

    images: slice
    sizes: list[int]
    first_group: int


def share(images: int, ghost_batch: int, ranks: Ranks) -> Share:
    """Which of a batch's `images` are computed here: whole ghost groups, in the batch's order.

    The groups are as equal as can be; their sizes depend on the recipe alone.
    """
    sizes = group_sizes(images, group_count(images, ghost_batch))
    return portion(Share(slice(0, images), sizes, 0), ranks)


def portion(whole: Share, ranks: Ranks) -> Share:
    """The part of `whole` that is computed here; its images are counted from those of `whole`."""
    mine = ranks.share(len(whole.sizes))
    start = sum(whole.sizes[: mine.start])
    sizes = whole.sizes[mine]
    return Share(slice(start, start + sum(sizes)), sizes, whole.first_group + mine.start)


def pieces(sizes: list[int], at_once: int) -> list[tuple[int, int]]:
    """How groups of `sizes` are computed: pieces of (images, groups), one after another.

    `at_once` images only decide how many of them are computed together.
    """
    together = max(1, at_once // max(sizes, default=1))
    cut = [sizes[i : i + together] for i in range(0, len(sizes), together)]
    return [(sum(piece), len(piece)) for piece in cut]


def check_groups(recipe: Recipe, ranks: Ranks) -> None:
    """RecipeError if a whole batch has fewer ghost groups than there are processes."""
    groups = group_count(recipe.batch_size, recipe.ghost_batch)
    if groups < ranks.world:
        most = recipe.batch_size // ranks.world
        way = f"--set ghost_batch={most} or less" if most else "start fewer, or --set batch_size"
        raise RecipeError(
            f"recipe {recipe.name}: {ranks.world} processes need as many ghost groups, but a "
            f"batch has {groups}: {way}"
        )


def check_sizes(recipe: Recipe, dataset: Dataset) -> None:
    """RecipeError if the recipe's padding, cutout or smallest size doesn't fit the images."""
    size = dataset.image_size
    least = NETWORKS[recipe.model.name].least(recipe.model, size)
    smallest = min(side(recipe, size, at) for at, _ in (*recipe.resolution, (0.0, 1.0)))
    if smallest < least:
        raise RecipeError(
            f"recipe {recipe.name}: {recipe.model.name} needs at least {least} pixels a side, and "
            f"would be trained on {smallest}: --set resolution=[] or a larger --image-size"
        )
    spec = recipe.sized(len(dataset.train), size).augment
    for key, value in (("pad", spec.pad), ("cutout", spec.cutout)):
        if value >= size:
            raise RecipeError(
                f"recipe {recipe.name}: augment.{key} {value} is too large for images of "
                f"{size} pixels; --set augment.{key}=... below that"
            )


def class_weights(dataset: Dataset) -> Tensor:
    """What an image of each class counts in the loss, (classes,); one on average over the images.

    In inverse proportion to the images of its class, as scikit-learn's `class_weight="balanced"`.
    """
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    return torch.from_numpy(counts.sum() / (len(counts) * np.maximum(counts, 1))).float()


@dataclass(frozen=True)
class _Work:
    """What a step is computed with."""

    recipe: Recipe
    machine: Machine
    ranks: Ranks
    seed: int
    step: int
    images: int  # of the whole batch, those of other processes included
    side: int  # pixels that images have in this step
    weights: Tensor | None  # (classes,), what an image of each class counts; all alike if None


def _in_lanes(
    work: _Work, lanes: Lanes, part: Share, given: Callable[[slice], Tensor], answers: Answers
) -> tuple[Tensor, Tensor]:
    """As `_gradients`, each lane its groups, whose images it asks for itself."""

    def one(model: nn.Module, lane: Ranks) -> tuple[Tensor, Tensor]:
        mine = portion(part, lane)
        images = resized(given(mine.images), work.side)
        return _gradients(work, model, mine, images, answers[mine.images])

    losses, correct = zip(*lanes.run(one), strict=True)
    return torch.stack(losses).sum(), torch.stack(correct).sum()


def _gradients(
    work: _Work, model: nn.Module, part: Share, images: Tensor, answers: Answers
) -> tuple[Tensor, Tensor]:
    """Add the gradients of `images`, which are `part`; their share of the mean loss, and the right.

    The loss is divided by the whole batch, so that parts and uneven groups add up to its mean.
    """
    recipe, machine = work.recipe, work.machine
    loss = torch.zeros((), device=machine.device)
    correct = torch.zeros((), dtype=torch.int64, device=machine.device)
    model.train()
    # Dropout is drawn per group, so then each group is computed by itself.
    at_once = 1 if recipe.model.dropout else machine.at_once(images.shape[1])
    cut = pieces(part.sizes, at_once)
    start = 0
    for number, (count, groups) in enumerate(cut):
        piece = slice(start, start + count)
        start += count
        for norm in norms(model):
            norm.groups = groups
        group = part.first_group + number
        with _dropout_stream(work, group), machine.autocast():
            logits = model(images[piece])
        piece_loss = _summed_loss(work, logits, answers[piece]).div(work.images)
        torch.autograd.backward(piece_loss * machine.loss_scale)
        loss += piece_loss.detach()
        correct += (logits.detach().argmax(1) == answers.labels[piece]).sum()
    return loss, correct


def _summed_loss(work: _Work, logits: Tensor, answers: Answers) -> Tensor:
    """The sum of the images' losses."""

    def losses(labels: Tensor) -> Tensor:
        smoothing = work.recipe.label_smoothing
        each = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        # Not by cross_entropy, which weights each class's part of the smoothing by that class.
        return each if work.weights is None else each * work.weights[labels]

    if answers.others is None or answers.own is None:
        return losses(answers.labels).sum()
    return losses(answers.others).lerp(losses(answers.labels), answers.own).sum()


@contextmanager
def _dropout_stream(work: _Work, group: int) -> Iterator[None]:
    """Inside, dropout draws from (seed, step, group); the global random state is left alone."""
    if not work.recipe.model.dropout:
        yield
        return
    key = np.random.SeedSequence([work.seed, work.step, group])
    here = [torch.cuda.current_device()] if work.machine.device == "cuda" else []
    with torch.random.fork_rng(here):
        torch.manual_seed(int(key.generate_state(1)[0]))
        yield


def _update(
    work: _Work, state: TrainState, lanes: Lanes, found: tuple[Tensor, Tensor], dropped: Tensor
) -> Tensor:
    """Move the running statistics and the weights, and count the step; whether it was dropped.

    A step is dropped if one before it was (`dropped`), or if anything in it is not finite.
    """
    norm_of_all = lanes.add_up()
    if work.ranks.world > 1:
        learnt = [p for p in state.model.parameters() if p.requires_grad]
        for parameter in learnt:
            if parameter.grad is None:  # a short batch has no images for some of the processes
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in learnt if p.grad is not None]
        work.ranks.add_up([*gradients, lanes.statistics.sums, *found, norm_of_all])
    # One number that is finite only if all of them are; the device isn't waited for.
    dropped = dropped | ~torch.isfinite(norm_of_all + found[0])
    lanes.statistics.fold(work.images, dropped)
    for optimizer in state.optimizers:
        if work.machine.loss_scale != 1:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(work.machine.loss_scale)
        # Fused optimizers leave weights and moments alone where this is 1 (as for a GradScaler).
        optimizer.found_inf = dropped.float()  # type: ignore[attr-defined]
        with work.machine.autocast_updates():
            if isinstance(optimizer, Muon):
                optimizer.step(each=lanes.each)
            else:
                optimizer.step()
        optimizer.zero_grad()
    state.step += 1
    return dropped
