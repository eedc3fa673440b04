"""DavidNet, the ResNet-9 of davidcpage/cifar10-fast, as the five references write it."""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.model.layers import ConvBlock, Network, Normalize, Residual
from onecycle.recipe.schema import ModelSpec


class Davidnet(Network):
    """Pixels (N, H, W, 3) on the 0-255 scale in, logits (N, classes) out.

    prep, layer1 (with a residual), layer2, layer3 (with a residual), pool, fc; the channels are
    `width` times 1, 2, 4 and 8. Width 64 and ten classes give 6,573,120 parameters without any
    bias, 6,573,130 with the last one's, 6,574,090 with those of the plain convolutions too, and
    6,575,370 with all.
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
        width, dropout = spec.width, spec.dropout
        plain, inner = spec.conv_bias != "none", spec.conv_bias == "all"

        def block(inputs: int, outputs: int, pool: bool = True) -> ConvBlock:
            return ConvBlock(inputs, outputs, pool=pool, bias=plain, dropout=dropout)

        def residual_stage(inputs: int, outputs: int) -> nn.Sequential:
            residual = Residual(outputs, bias=inner, dropout=dropout)
            return nn.Sequential(OrderedDict(x=block(inputs, outputs), residual=residual))

        self.normalize = Normalize(mean, std)
        self.prep = block(3, width, pool=False)
        self.layer1 = residual_stage(width, 2 * width)
        self.layer2 = block(2 * width, 4 * width)
        self.layer3 = residual_stage(4 * width, 8 * width)
        self.pool = _head(spec.head, image_size // 8)
        self.fc = nn.Linear(8 * width, classes, bias=spec.fc_bias)

    @classmethod
    def least(cls, spec: ModelSpec, image_size: int) -> int:
        # The pool before the average is as wide as its maps, up to 4 pixels.
        return 8 * min(4, image_size // 8) if spec.head == "gap" else cls.least_side

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.prep(self.normalize(pixels))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits.float()


def _head(kind: str, size: int) -> nn.Module:
    """Maps of `size` pixels to one: at 4 pixels, those of 32-pixel images, both kinds agree."""
    if kind == "max":
        return nn.AdaptiveMaxPool2d(1)
    return nn.Sequential(nn.MaxPool2d(min(4, size)), nn.AdaptiveAvgPool2d(1))
