"""Class probabilities of a whole split, from which every figure is derived."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onecycle.allocator import keeping
from onecycle.datasets.dataset import Split
from onecycle.evaluation.views import VIEWS
from onecycle.machine import Machine
from onecycle.ranks import ALONE, Ranks

BATCH = {"cpu": 250}  # images at once; activations of more fall out of a CPU's cache
BATCH_ON_ACCELERATOR = 2000


@torch.inference_mode()
def probabilities(
    model: nn.Module,
    split: Split,
    machine: Machine,
    tta: str = "none",
    ranks: Ranks = ALONE,
) -> NDArray[np.float32]:
    """Probabilities (N, classes) fp32 of the split's images, in eval mode.

    `tta` names the views of each image whose logits are averaged: none (the image as it is), flip
    or crop. Several processes predict a share each (all of it, if it has fewer images), and all get
    the whole. The model's training mode is left as it was found.
    """
    if len(split) < ranks.world:
        ranks = ALONE
    training = model.training
    model.eval()
    batch = BATCH.get(machine.device, BATCH_ON_ACCELERATOR)
    mine = ranks.share(len(split))
    parts = []
    try:
        with keeping(machine.device):
            for start in range(mine.start, mine.stop, batch):
                stop = min(start + batch, mine.stop)
                images = torch.from_numpy(split.images(start, stop)).to(machine.device)
                with machine.autocast():
                    logits = [view.weight * model(view.of(images)).float() for view in VIEWS[tta]]
                parts.append(torch.stack(logits).sum(0).softmax(1))
    finally:
        model.train(training)
    result: NDArray[np.float32] = ranks.gather(torch.cat(parts), len(split)).cpu().numpy()
    return result
