"""MixUp (Zhang et al., 2018) and CutMix (Yun et al., 2019): each image with a part of another.

The other image is any of the epoch's, not of the batch, so that neither the batch nor how it is
shared out decides. The larger part is the image's own, so that its label stays the one that counts
as right. With both, each image has one of the two, either as likely.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onecycle.recipe.schema import AugmentSpec


@dataclass(frozen=True)
class Mixing:
    """One epoch's choices, a row for each place in its order."""

    partner: Tensor  # (N,) int64: the place in the order of the other image
    pixels: Tensor  # (N,) fp32: how much of each pixel is the image's own
    box: Tensor  # (N, 4) int64: top, left, bottom, right of what is the other's alone
    own: Tensor  # (N,) fp32: what the own label counts, from a half to one

    def to(self, device: str) -> "Mixing":
        """The choices with their tensors on `device`."""
        return Mixing(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class Answers:
    """What n images show: their `labels`, and with MixUp or CutMix those of the others.

    The own labels count `own` (n,), the `others` the rest.
    """

    labels: Tensor
    others: Tensor | None = None
    own: Tensor | None = None

    def __getitem__(self, part: slice) -> "Answers":
        """The answers of some of the images."""
        if self.others is None or self.own is None:
            return Answers(self.labels[part])
        return Answers(self.labels[part], self.others[part], self.own[part])


def draw(spec: AugmentSpec, count: int, size: int, stream: np.random.Generator) -> Mixing | None:
    """What is drawn for `count` places and images of `size` pixels; None if nothing is mixed."""
    if not spec.mixup and not spec.cutmix:
        return None
    partner = stream.permutation(count)
    cut = stream.random(count) < (0.5 if spec.mixup else 1.0)
    cut &= spec.cutmix > 0
    ours = np.ones((2, count))
    for row, alpha in enumerate((spec.mixup, spec.cutmix)):
        if alpha:
            ours[row] = stream.beta(alpha, alpha, count)
    ours = np.maximum(ours, 1 - ours)
    side = np.floor(size * np.sqrt(1 - ours[1]))  # not more than drawn, so not more than half
    first = np.rint(stream.uniform(0, size, (2, count)) - side / 2)
    box = np.stack([*first, *(first + side)], axis=1).clip(0, size).astype(np.int64)
    box *= cut[:, None]
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    pixels = np.where(cut, 1.0, ours[0])
    own = np.where(cut, 1 - area / size**2, pixels)
    return Mixing(
        torch.from_numpy(partner),
        torch.from_numpy(pixels).float(),
        torch.from_numpy(box),
        torch.from_numpy(own).float(),
    )


def mix(images: Tensor, others: Tensor, mixing: Mixing, places: Tensor) -> Tensor:
    """`images` (n, H, W, 3) with a part of `others`, by rows `places` (n,) of `mixing`; fp32."""
    share = mixing.pixels[places].view(-1, 1, 1, 1)
    mixed = images * share + others * (1 - share)
    line = torch.arange(images.shape[1], device=images.device)
    top, left, bottom, right = mixing.box[places].unbind(1)
    rows = (line >= top[:, None]) & (line < bottom[:, None])
    columns = (line >= left[:, None]) & (line < right[:, None])
    inside = rows[:, :, None] & columns[:, None, :]
    return torch.where(inside[..., None], others.float(), mixed)
