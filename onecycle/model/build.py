"""From a recipe's model table to a network with its first weights."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onecycle.model.convolution import Conv3x3
from onecycle.model.davidnet import Davidnet
from onecycle.model.dilated import Dilated
from onecycle.model.layers import Network
from onecycle.model.resnet18 import Resnet18
from onecycle.model.speednet import Speednet
from onecycle.recipe.schema import ModelSpec

NETWORKS: dict[str, type[Network]] = {
    "davidnet": Davidnet,
    "dilated": Dilated,
    "resnet18": Resnet18,
    "speednet": Speednet,
}
# Channel means and deviations of ImageNet's training images, as torchvision's models have them.
IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])


class Described(Protocol):
    """What a network must know of the images: a Dataset says it, and so does a run's folder."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def image_size(self) -> int: ...
    @property
    def mean(self) -> NDArray[np.float64]: ...
    @property
    def std(self) -> NDArray[np.float64]: ...


def build(spec: ModelSpec, data: Described, seed: int) -> Network:
    """The network for the classes and image size of `data`, on the CPU.

    It standardizes pixels with the statistics of `data`, or ImageNet's where the recipe says so.
    The weights are torch's defaults drawn from `seed`; no global random state is moved.
    """
    mean, std = data.mean, data.std
    if spec.statistics == "imagenet":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NETWORKS[spec.name](spec, len(data.classes), data.image_size, mean, std)
    for module in model.modules():
        if isinstance(module, Conv3x3):
            module.int8 = spec.int8
    return model


def parameter_count(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())
