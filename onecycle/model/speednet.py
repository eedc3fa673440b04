"""A network for few operations: a whitening stem, then three stages with a residual each."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.model import tiled
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import GhostBatchNorm, Layer, Network, Normalize, in_turn
from onecycle.model.whitening import Whitening, whiten_activate
from onecycle.recipe.schema import ModelSpec

STEM = 24  # channels: the 12 directions of a 2x2 patch, each with both signs


class Speednet(Network):
    """Pixels (N, H, W, 3) on the 0-255 scale in, logits (N, classes) out.

    After the networks of KellerJordan/cifar10-airbench, narrower where the maps are large: the
    channels are `width` times 1, 4 and 8. Each stage is conv, max pool, batch norm, SiLU, and a
    residual of one, one and two times conv, batch norm, SiLU. Convolutions begin as the identity,
    batch norms have no scale of their own. Width 32 and ten classes give 1,678,656 parameters.
    """

    least_side = 16

    def __init__(
        self,
        spec: ModelSpec,
        classes: int,
        image_size: int,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
    ) -> None:
        super().__init__()
        width = spec.width
        self.normalize = Normalize(mean, std)
        self.stem = Whitening(STEM, kernel=2)
        self.layer1 = Stage(STEM, width, residual=1)
        self.layer2 = Stage(width, 4 * width, residual=1)
        self.layer3 = Stage(4 * width, 8 * width, residual=2)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(8 * width, classes, bias=False)
        # A small start: the first steps then learn from all images alike.
        nn.init.normal_(self.fc.weight, std=1 / (8 * width))

    def forward(self, pixels: Tensor) -> Tensor:
        x = whiten_activate(pixels, self.normalize, self.stem)
        tiles = tiled.here(x)
        x = in_turn(x, self.layers()) if tiles else self.layer3(self.layer2(self.layer1(x)))
        # Of one pixel torch's pool takes longer than of nine.
        pooled = x if self.training and x.shape[2:] == (1, 1) else self.pool(x)
        logits: Tensor = self.fc(pooled.flatten(1))
        return logits.float()

    def layers(self) -> list[Layer]:
        """What is between the stem and the pool."""
        made: list[Layer] = []
        for stage in (self.layer1, self.layer2, self.layer3):
            made += stage.layers(len(made) + 1)
        return made


class Block(nn.Module):
    """Conv 3x3, perhaps MaxPool2, then batch norm and SiLU; (N, C, H, W) in and out.

    The convolution passes on its inputs at first, as far as there are outputs.
    """

    def __init__(self, inputs: int, outputs: int, *, pool: bool = False) -> None:
        super().__init__()
        self.conv = Conv3x3(inputs, outputs)
        nn.init.dirac_(self.conv.weight.data[:inputs])
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = GhostBatchNorm(outputs, scale=False)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """The block of `x`, to which `plus` is added."""
        return in_turn(x, [self.layer()], plus)

    def layer(self) -> Layer:
        return Layer(self.conv, self.pool, self.norm, "silu")


class Stage(nn.Module):
    """A block that halves the maps, then its output plus `residual` blocks of it."""

    def __init__(self, inputs: int, outputs: int, *, residual: int) -> None:
        super().__init__()
        self.first = Block(inputs, outputs, pool=True)
        self.residual = nn.Sequential(*(Block(outputs, outputs) for _ in range(residual)))

    def layers(self, first: int) -> list[Layer]:
        """Its layers, of which the first is the `first` of all, counted from 1."""
        blocks = [block for block in self.residual if isinstance(block, Block)]
        *all_but_last, last = (block.layer() for block in (self.first, *blocks))
        return [*all_but_last, last._replace(plus=first)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        *blocks, last = self.residual
        y: Tensor = x
        for block in blocks:
            y = block(y)
        y = last(y, x)
        return y
