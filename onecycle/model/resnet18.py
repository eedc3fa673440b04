"""ResNet-18 (He et al. 2015) for small images, as kuangliu/pytorch-cifar has it."""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import (
    ConvBlock,
    GhostBatchNorm,
    Layer,
    Network,
    Normalize,
    in_turn,
)
from onecycle.recipe.schema import ModelSpec


class Resnet18(Network):
    """Pixels (N, H, W, 3) on the 0-255 scale in, logits (N, classes) out.

    stem, four stages of two blocks each, global average pool, fc; the channels of the stages are
    `width` times 1, 2, 4 and 8, and each but the first halves the map. Width 64 and ten classes
    give 11,173,962 parameters.
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
        width = spec.width

        def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1))

        self.normalize = Normalize(mean, std)
        self.stem = ConvBlock(3, width, dropout=0.0)
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)
        self.layer4 = stage(4 * width, 8 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.stem(self.normalize(pixels))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits.float()


class Block(nn.Module):
    """Two 3x3 convolutions, plus the input (a 1x1 convolution of it where the shape changes)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride)
        self.second = ConvNorm(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x, "relu"), plus=self.shortcut(x)))


class ConvNorm(nn.Module):
    """A convolution, batch norm and perhaps an activation, and what is added."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        if (kernel, stride) == (3, 1):
            self.conv: nn.Conv2d = Conv3x3(inputs, outputs)
        else:
            padding = kernel // 2
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = GhostBatchNorm(outputs)

    def forward(self, x: Tensor, activation: str = "none", plus: Tensor | None = None) -> Tensor:
        return in_turn(x, [Layer(self.conv, None, self.norm, activation)], plus)
