"""Our networks with the layers of plain PyTorch."""

from torch import nn

from onecycle.model.layers import GhostBatchNorm


def with_torch_batch_norm(module):
    """`module` with each of our batch norms replaced by torch's."""
    for name, child in module.named_children():
        if isinstance(child, GhostBatchNorm):
            setattr(module, name, nn.BatchNorm2d(len(child.weight)))
        with_torch_batch_norm(child)
    return module
