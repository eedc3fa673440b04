"""A small network of dilated and grouped convolutions: reference 001's `model7`."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.model.layers import GhostBatchNorm, Network, Normalize
from onecycle.recipe.schema import ModelSpec


class Dilated(Network):
    """Pixels (N, H, W, 3) on the 0-255 scale in, logits (N, classes) out.

    Three stages that each end in a max pool, a global average pool, fc; the channels are `width`
    times 1, 2 and 4, and all convolutions have a bias. Width 32 and ten classes give 288,234
    parameters.
    """

    least_side = 8

    def __init__(
        self,
        spec: ModelSpec,
        classes: int,
        image_size: int,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
    ) -> None:
        super().__init__()
        one, two, four = spec.width, 2 * spec.width, 4 * spec.width

        def block(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
            return _block([_conv(inputs, outputs, dilation)], outputs, spec.dropout)

        def separable(inputs: int, outputs: int) -> nn.Sequential:
            convs = [_conv(inputs, outputs, groups=inputs), nn.Conv2d(outputs, outputs, 1)]
            return _block(convs, outputs, spec.dropout)

        def stage(*blocks: nn.Module) -> nn.Sequential:
            return nn.Sequential(*blocks, nn.MaxPool2d(2))

        self.normalize = Normalize(mean, std)
        self.layer1 = stage(block(3, one), block(one, one), block(one, two, dilation=2))
        self.layer2 = stage(block(two, two, 2), block(two, two, 2), separable(two, four))
        self.layer3 = stage(separable(four, four), block(four, four, dilation=2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(four, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.normalize(pixels))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits.float()


def _conv(inputs: int, outputs: int, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size of the map."""
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, groups=groups)


def _block(convs: list[nn.Conv2d], channels: int, dropout: float) -> nn.Sequential:
    """The convolutions, then ReLU, batch norm and dropout, in the reference's order."""
    named = OrderedDict[str, nn.Module](zip(("conv", "point"), convs, strict=False))
    named |= {"relu": nn.ReLU(), "norm": GhostBatchNorm(channels)}
    named["dropout"] = nn.Dropout(dropout) if dropout else nn.Identity()
    return nn.Sequential(named)
