"""From a recipe's model table to a network with its first weights."""

import numpy as np
import torch
from torch import nn

from onecycle.datasets.dataset import Dataset
from onecycle.model.davidnet import Davidnet
from onecycle.model.dilated import Dilated
from onecycle.model.resnet18 import Resnet18
from onecycle.recipe.schema import ModelSpec

NETWORKS = {"davidnet": Davidnet, "dilated": Dilated, "resnet18": Resnet18}
# Channel means and deviations of ImageNet's training images, as torchvision's models have them.
IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])


def build(spec: ModelSpec, dataset: Dataset, seed: int) -> nn.Module:
    """The network for `dataset`'s classes and image size, on the CPU.

    It standardizes pixels with `dataset`'s statistics, or ImageNet's where the recipe says so.
    The weights are torch's defaults drawn from `seed`; no global random state is moved.
    """
    mean, std = dataset.mean, dataset.std
    if spec.statistics == "imagenet":
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[spec.name](spec, len(dataset.classes), dataset.image_size, mean, std)


def parameter_count(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())
