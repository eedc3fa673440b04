"""The blocks that the networks are made of."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.model import fused, tiled
from onecycle.model.convolution import Conv3x3
from onecycle.recipe.schema import ModelSpec

MOMENTUM = 0.1  # weight of a step's statistics in the running ones (torch's default)
EPS = 1e-5


class Network(nn.Module):
    """A classifier: pixels (N, H, W, 3) on the 0-255 scale in, logits (N, classes) in fp32 out."""

    least_side: int  # pixels of the smallest image that it takes

    @classmethod
    def least(cls, spec: ModelSpec, image_size: int) -> int:
        """Pixels of the smallest image that it takes when it was made for `image_size`."""
        return cls.least_side


class Normalize(nn.Module):
    """Pixels to network input: (N, H, W, 3) on the 0-255 scale to standardized (N, 3, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        # A channel that never changes carries nothing, and must not divide by zero.
        self.register_buffer("std", torch.tensor(np.where(std > 0, std, 1), dtype=torch.float32))

    def forward(self, pixels: Tensor) -> Tensor:
        # NHWC seen as NCHW is channels_last, the layout that convolutions are fastest in.
        return ((pixels.float() - self.mean) / self.std).permute(0, 3, 1, 2)


class GhostBatchNorm(nn.Module):
    """Batch norm over each of `groups` parts of its input (Hoffer et al. 2017).

    The running statistics change once a training step, in `Statistics.fold`: by the mean over the
    step's images of their groups' statistics. So they depend neither on the order of the groups nor
    on how many were computed at once; with one group they are torch's BatchNorm2d's.
    """

    weight: Tensor
    running_mean: Tensor
    running_var: Tensor
    step: Tensor  # (2, C), the sums of a step's means and variances, each times its images

    def __init__(self, channels: int, *, scale: bool = True) -> None:
        super().__init__()
        if scale:
            self.weight = nn.Parameter(torch.ones(channels))
        else:  # fixed at one: the next layer's weights can do what it would
            self.register_buffer("weight", torch.ones(channels), persistent=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("step", torch.zeros(2, channels), persistent=False)
        self.groups = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.train_on(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPS)

    def train_on(self, x: Tensor, *, pool: bool = False, activation: str = "none") -> Tensor:
        """A training step's batch norm of `x`, max pooled by 2 before and activated after it."""
        sizes = group_sizes(len(x), self.groups)
        # split_with_sizes, unlike tensor_split, keeps channels_last in the backward pass.
        parts = [x] if self.groups == 1 else torch.split(x, sizes)
        ys, means, variances = zip(
            *(self._normalize(p, pool, activation) for p in parts), strict=True
        )
        self.note(sizes, map(torch.stack, zip(means, variances, strict=True)))
        return ys[0] if self.groups == 1 else torch.cat(ys)

    def note(self, sizes: Iterable[int], found: Iterable[Tensor]) -> None:
        """Take the mean and variance (2, C) of each group of `sizes` images into the step's."""
        for size, both in zip(sizes, found, strict=True):
            self.step.add_(both, alpha=size)

    def _normalize(self, x: Tensor, pool: bool, activation: str) -> tuple[Tensor, Tensor, Tensor]:
        if fused.possible(x, pool):
            return fused.pool_norm_activate(
                x, self.weight, self.bias, EPS, pool=pool, activation=activation
            )
        y, mean, var = self._by_torch(F.max_pool2d(x, 2) if pool else x)
        return ACTIVATIONS[activation](y), mean, var

    def _by_torch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batch norm of `x`, with the mean and variance of each channel."""
        if x.numel() == x.shape[1]:  # one value a channel: its own mean, and nothing of a variance
            y = x * 0 * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
            return y, x.detach().float().flatten(), self.running_var
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        # With momentum 1 the two are overwritten by this group's own statistics.
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, EPS), mean, var


class Statistics:
    """The batch norms of a model, and what they find in a step, in one tensor of `sums`."""

    def __init__(self, model: nn.Module) -> None:
        self.norms = list(norms(model))
        self.sums = torch.cat([norm.step for norm in self.norms] or [torch.zeros(2, 0)], 1)
        for norm, step in zip(self.norms, _split(self.norms, self.sums), strict=True):
            norm.step = step

    def fold(self, images: int, dropped: Tensor) -> None:
        """Move the running statistics by those of the step's `images`, and forget the latter.

        Where `dropped`, a truth on the device, holds, they stay as they were.
        """
        found = torch.where(dropped, 0.0, self.sums / images)
        share = torch.where(dropped, 0.0, MOMENTUM)
        for norm, (mean, variance) in zip(self.norms, _split(self.norms, found), strict=True):
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance, share)
        self.sums.zero_()


def _split(norms: list[GhostBatchNorm], found: Tensor) -> tuple[Tensor, ...]:
    """What was found of all channels, by norms."""
    return torch.split(found, [len(norm.bias) for norm in norms], -1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
}


class Layer(NamedTuple):
    """A convolution, a MaxPool2d(2) if any, a batch norm and an activation; and a sum.

    To a layer of `in_turn` the result of an earlier one may be added: of the nth if `plus` is n,
    what the first is given if it is 0.
    """

    conv: nn.Module
    pool: nn.Module | None
    norm: nn.Module
    activation: str
    plus: int | None = None


def in_turn(x: Tensor, layers: Sequence[Layer], plus: Tensor | None = None) -> Tensor:
    """The `layers` of `x`, each of what the one before it makes; and `plus`.

    What a layer does, and what they do, comes one after another, but for training steps and
    predictions, in which some or all may be done at once.
    """
    if tiled.here(x):
        made = _by_tiles(x, layers, plus)
        if made is not None:
            return made
    if len(layers) == 1:
        return _by_itself(x, layers[0], x if layers[0].plus == 0 else plus)
    results = [x]
    for layer in layers:
        more = plus if layer is layers[-1] else None
        if layer.plus is not None:
            more = results[layer.plus]
        results.append(in_turn(results[-1], [layer._replace(plus=None)], more))
    return results[-1]


def _by_itself(x: Tensor, layer: Layer, plus: Tensor | None) -> Tensor:
    conv, pool, norm, activation, _ = layer
    if isinstance(norm, GhostBatchNorm) and norm.training:
        y = norm.train_on(conv(x), pool=isinstance(pool, nn.MaxPool2d), activation=activation)
    else:
        y = conv(x) if pool is None else pool(conv(x))
        y = ACTIVATIONS[activation](norm(y))
    return y if plus is None else plus + y


def _by_tiles(x: Tensor, layers: Sequence[Layer], plus: Tensor | None) -> Tensor | None:
    """As `in_turn`, or nothing, if tiles aren't for that."""
    norms = [layer.norm for layer in layers if isinstance(layer.norm, GhostBatchNorm)]
    convs = [layer.conv for layer in layers if isinstance(layer.conv, Conv3x3)]
    if not len(norms) == len(convs) == len(layers):
        return None
    training = norms[0].training
    told = [
        tiled.TiledLayer(
            conv,
            isinstance(layer.pool, nn.MaxPool2d),
            norm.weight,
            norm.bias,
            layer.activation,
            layer.plus,
        )
        for conv, norm, layer in zip(convs, norms, layers, strict=True)
    ]
    sizes = group_sizes(len(x), norms[0].groups if training else 1)
    learns = training or not torch.is_grad_enabled()
    if not (learns and tiled.possible(x, sizes, told)):
        return None
    if not training:
        statistics = [(norm.running_mean, norm.running_var) for norm in norms]
        return tiled.judged(x, told, statistics, EPS, plus)
    y, found = tiled.in_turn(x, sizes, told, EPS, plus)
    for norm, part in zip(norms, _split(norms, found), strict=True):
        norm.note(sizes, part)
    return y


def group_count(images: int, ghost_batch: int) -> int:
    """How many ghost groups `images` make: one, if `ghost_batch` is 0."""
    return -(-images // ghost_batch) if ghost_batch else 1


def group_sizes(images: int, groups: int) -> list[int]:
    """`images` shared out to `groups` as equally as can be, the larger ones first."""
    size, larger = divmod(images, groups)
    return [size + 1] * larger + [size] * (groups - larger)


def norms(model: nn.Module) -> Iterator[GhostBatchNorm]:
    """The batch-norm layers of `model`."""
    return (module for module in model.modules() if isinstance(module, GhostBatchNorm))


class ConvBlock(nn.Module):
    """Conv 3x3, perhaps MaxPool2, then batch norm, ReLU and dropout; (N, C, H, W) in and out."""

    def __init__(
        self, inputs: int, outputs: int, *, pool: bool = False, bias: bool = False, dropout: float
    ) -> None:
        super().__init__()
        self.conv = Conv3x3(inputs, outputs, bias=bias)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = GhostBatchNorm(outputs)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """The block of `x`, to which `plus` is added."""
        last = isinstance(self.dropout, nn.Identity)
        layer = Layer(self.conv, self.pool, self.norm, "relu")
        y: Tensor = self.dropout(in_turn(x, [layer], plus if last else None))
        return y if last or plus is None else plus + y


class Residual(nn.Module):
    """The input plus two blocks of it, with no activation after the sum."""

    def __init__(self, channels: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, bias=bias, dropout=dropout)
        self.second = ConvBlock(channels, channels, bias=bias, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x), x)
        return y
