"""Class probabilities of a whole split, from which every figure is derived."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.allocator import keeping
from onecycle.datasets.dataset import Split
from onecycle.evaluation.views import VIEWS
from onecycle.machine import Machine, has_tiles
from onecycle.ranks import ALONE, Ranks

BATCH = {"cpu": 250}  # images at once; activations of more fall out of a CPU's cache
BATCH_ON_ACCELERATOR = 2000


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
    size = BATCH.get(machine.device, BATCH_ON_ACCELERATOR)
    mine = ranks.share(len(split))

    @torch.inference_mode()
    def batch(start: int) -> Tensor:
        stop = min(start + size, mine.stop)
        images = torch.from_numpy(split.images(start, stop)).to(machine.device)
        with machine.autocast():
            logits = [view.weight * model(view.of(images)).float() for view in VIEWS[tta]]
        return torch.stack(logits).sum(0).softmax(1)

    try:
        with keeping(machine.device), _side_by_side(machine) as apply:
            parts = list(apply(batch, range(mine.start, mine.stop, size)))
    finally:
        model.train(training)
    result: NDArray[np.float32] = ranks.gather(torch.cat(parts), len(split)).cpu().numpy()
    return result


@contextmanager
def _side_by_side(machine: Machine) -> Iterator[Callable[..., Iterator[Tensor]]]:
    """Inside, something like `map`: a batch for each thread, where each is computed by one."""
    if machine.device != "cpu" or machine.precision != "bf16" or not has_tiles():
        yield map
        return
    with ThreadPoolExecutor(machine.threads, "batch", torch.set_num_threads, (1,)) as pool:
        yield pool.map
