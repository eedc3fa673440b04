"""Order and augmentation: a plan is drawn for a whole epoch, then applied batch by batch.

The plan is a function of the recipe, the number of images, their size (and labels, where they are
sampled by class), seed and epoch alone, and is drawn on the CPU, one row per training image;
it is applied by exact gathers of uint8 pixels on whatever device the images are. So a resumed
run, or one on another device, sees the same bytes. What computes with pixels (`policies`, `mixing`)
comes after that, and is drawn in the same way. (Drawing an epoch's choices up front is
davidcpage/cifar10-fast's idea; alternating flip is airbench's, Jordan 2024; cutout is DeVries and
Taylor's, 2017, whose squares may cross the border; cifar10-fast's lie inside the image.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onecycle.datasets import mixing, policies
from onecycle.datasets.mixing import Answers, Mixing
from onecycle.datasets.pixels import lit, moved
from onecycle.datasets.policies import Policy
from onecycle.recipe.schema import AugmentSpec

# Each kind of choice has a random stream of its own, so that one option moves no other.
ORDER, CROP, FLIP, CUTOUT, ERASING, POLICY, COLOUR, MIXING, LIGHT = range(9)
ERASED, ASPECT = (0.02, 0.33), 0.3  # of the area; shortest side over the longest, at least
WHITE, GREY = 255, 127.5


@dataclass(frozen=True)
class Plan:
    """One epoch's choices: which images are trained on, and a row of choices for each.

    A row belongs to an image's position in its split, or, where some images come more than once,
    to a place in the order.
    """

    order: Tensor  # (N,) int64: positions in the split, in the order in which they are trained on
    choice: Tensor  # (N,) int64: for each place in that order, which row of what follows is for it
    top: Tensor  # (N,) int64: first row of the crop in the padded image
    left: Tensor  # (N,) int64: first column of it
    flip: Tensor  # (N,) bool
    cut_top: Tensor  # (N,) int64: first row of the square, below 0 if it crosses the border
    cut_left: Tensor  # (N,) int64
    cut_side: Tensor  # (N,) int64: its rows and columns; 0 where there is none
    erased: Tensor  # (N, 4) int64: top, left, rows and columns of a rectangle, or 0
    light: Tensor | None  # (N, 2) fp32: what its pixels are multiplied by, and what is added then
    policy: Policy | None
    mixing: Mixing | None

    def to(self, device: str) -> "Plan":
        """The plan with its tensors on `device`."""
        moved: list[Any] = [None if t is None else t.to(device) for t in vars(self).values()]
        return Plan(*moved)


def draw(
    spec: AugmentSpec,
    count: int,
    size: int,
    seed: int,
    epoch: int,
    balanced: np.ndarray | None = None,
) -> Plan:
    """The plan of `epoch` (from 0) for `count` images of `size` pixels.

    With their labels (N,) as `balanced`, each class is drawn equally often.
    """
    order = choice = _stream(seed, epoch, ORDER).permutation(count)
    if balanced is not None:
        order, choice = _each_class_alike(balanced, _stream(seed, epoch, ORDER)), np.arange(count)
    flip = _draw_flip(spec, count, seed, epoch)
    if balanced is not None and spec.flip == "alternating":
        flip = flip[order]  # an image alternates, wherever it comes in the order
    top, left = _stream(seed, epoch, CROP).integers(0, 2 * spec.pad + 1, (2, count))
    plan = (
        order,
        choice,
        top,
        left,
        flip,
        *_draw_cutout(spec, count, size, _stream(seed, epoch, CUTOUT)),
        _draw_erasing(spec, count, size, _stream(seed, epoch, ERASING)),
    )
    policy = policies.draw(spec, count, _stream(seed, epoch, POLICY), _stream(seed, epoch, COLOUR))
    mixed = mixing.draw(spec, count, size, _stream(seed, epoch, MIXING))
    light = _draw_light(spec, count, _stream(seed, epoch, LIGHT))
    drawn: list[Any] = [*map(torch.from_numpy, plan), light, policy, mixed]
    return Plan(*drawn)


def fill_colour(spec: AugmentSpec, mean: np.ndarray) -> Tensor:
    """What a cutout is filled with, (3,) uint8; `mean` (3,) is the training images' colour."""
    colour = np.rint(mean) if spec.cutout_fill == "mean" else np.zeros(3)
    return torch.from_numpy(colour.astype(np.uint8))


def apply(
    spec: AugmentSpec, pixels: Tensor, rows: Tensor, positions: Tensor, plan: Plan, fill: Tensor
) -> Tensor:
    """The augmented images, (n, H, W, 3) uint8.

    `pixels` (M, H, W, 3) uint8 holds the originals, `rows` (n,) says which of them, `positions`
    (n,) which rows of choices in `plan`; `fill` (3,) uint8 is the colour of the cutout.
    """
    size, places = pixels.shape[1], (plan.top, plan.left, plan.flip)
    zero = spec.pad > 0 and spec.pad_mode == "zero"
    images = moved(pixels, rows, positions, places, spec.pad, zero)
    if spec.cutout:
        side = plan.cut_side[positions, None]
        cut_y = _within(size, plan.cut_top[positions, None], side)
        cut_x = _within(size, plan.cut_left[positions, None], side)
        images[cut_y[:, :, None] & cut_x[:, None, :]] = fill
    if spec.erasing:
        top, left, height, width = plan.erased[positions, :, None].unbind(1)
        rows_in, columns_in = _within(size, top, height), _within(size, left, width)
        images[rows_in[:, :, None] & columns_in[:, None, :]] = fill
    return images


def given(
    spec: AugmentSpec,
    originals: Callable[[Tensor], tuple[Tensor, Tensor]],
    plan: Plan,
    places: Tensor,
    fill: Tensor,
) -> Tensor:
    """What the network is given for `places` (n,) in the plan's order: (n, H, W, 3).

    uint8, or fp32 on the same scale if the recipe does more than move pixels and fill them; only
    a policy keeps them within it. `originals` gives the pixels and rows, as `apply` takes them, of
    positions in the split.
    """

    def looked(places: Tensor) -> Tensor:
        choices = plan.choice[places]
        images = apply(spec, *originals(plan.order[places]), choices, plan, fill)
        if plan.policy is not None:
            images = policies.apply(spec, images, plan.policy, choices, fill)
        if plan.light is not None:
            images = lit(images, plan.light, choices)
        return images

    if plan.mixing is None:
        return looked(places)
    others = looked(plan.mixing.partner[places])
    return mixing.mix(looked(places), others, plan.mixing, places)


def answers(labels: Tensor, plan: Plan, places: Tensor) -> Answers:
    """What the images that `given` gives show; `labels` (N,) are the split's."""
    own = labels[plan.order[places]]
    if plan.mixing is None:
        return Answers(own)
    others = labels[plan.order[plan.mixing.partner[places]]]
    return Answers(own, others, plan.mixing.own[places])


def _stream(seed: int, epoch: int, kind: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, kind]))


def _each_class_alike(labels: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """As many positions as `labels`, (N,), of each class as many as of another, or one more.

    A class's images come equally often, or once more; of large classes a part is left out.
    """
    classes = np.unique(labels)
    wanted = np.full(len(classes), len(labels) // len(classes))
    wanted[stream.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    taken = []
    for label, count in zip(classes, wanted, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [stream.permutation(members) for _ in range(-(-count // len(members)))]
        taken.append(np.concatenate([members[:0], *rounds])[:count])
    return stream.permutation(np.concatenate(taken))


def _draw_flip(spec: AugmentSpec, count: int, seed: int, epoch: int) -> np.ndarray:
    if spec.flip == "none":
        return np.zeros(count, dtype=bool)
    if spec.flip == "random":
        return _stream(seed, epoch, FLIP).random(count) < 0.5
    return (_stream(seed, 0, FLIP).random(count) < 0.5) ^ bool(epoch % 2)


def _draw_cutout(
    spec: AugmentSpec, count: int, size: int, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row, first column and side of each image's square."""
    low: int | np.ndarray = 0
    high: int | np.ndarray = size - spec.cutout + 1
    side = np.full(count, spec.cutout)
    if spec.cutout_side == "random" and spec.cutout:
        side = stream.integers(1, spec.cutout + 1, count)
        high = size - side + 1
    if spec.cutout_place == "clipped":
        # Every place that touches the image, so that its edges are covered as often as its middle.
        low, high = 1 - side, size
    top, left = stream.integers(low, high, (2, count))
    side[stream.random(count) >= spec.cutout_probability] = 0
    return top, left, side


def _draw_erasing(
    spec: AugmentSpec, count: int, size: int, stream: np.random.Generator
) -> np.ndarray:
    """Top, left, rows and columns of each image's rectangle (Zhong et al., 2017), (N, 4)."""
    if not spec.erasing:
        return np.zeros((count, 4), dtype=np.int64)
    area = stream.uniform(*ERASED, count) * size**2
    aspect = np.exp(stream.uniform(np.log(ASPECT), -np.log(ASPECT), count))
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=1)
    sides = np.rint(sides).clip(1, size).astype(np.int64)
    corner = stream.integers(0, size - sides + 1)
    sides[stream.random(count) >= spec.erasing] = 0
    return np.concatenate([corner, sides], axis=1)


def _draw_light(spec: AugmentSpec, count: int, stream: np.random.Generator) -> Tensor | None:
    """What changes each image's contrast about mid-grey and its brightness, (N, 2)."""
    if not spec.brightness and not spec.contrast:
        return None
    contrast, brightness = stream.uniform(-1, 1, (2, count))
    factor = 1 + spec.contrast * contrast
    more = WHITE * spec.brightness * brightness + GREY * (1 - factor)
    return torch.from_numpy(np.stack([factor, more], axis=1)).float()


def _within(size: int, first: Tensor, length: Tensor) -> Tensor:
    """Which of `size` rows or columns are among `length` from `first`, (n, 1) each; (n, size)."""
    line = torch.arange(size, device=first.device)
    return (line >= first) & (line < first + length)
