"""From a recipe's model table to a network with its first weights."""

import torch
from torch import nn

from onecycle.datasets.dataset import Dataset
from onecycle.model.davidnet import Davidnet
from onecycle.recipe.schema import ModelSpec


def build(spec: ModelSpec, dataset: Dataset, seed: int) -> nn.Module:
    """The network for `dataset`'s classes, image size and statistics, on the CPU.

    The weights are torch's defaults drawn from `seed`; no global random state is moved.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Davidnet(spec, len(dataset.classes), dataset.image_size, dataset.mean, dataset.std)


def parameter_count(model: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in model.parameters())
