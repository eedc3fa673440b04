"""Where a network looked: Grad-CAM (Selvaraju et al. 2017) by captum."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.errors import OnecycleError, need

BATCH = 100  # images at once


def class_maps(
    model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64], device: str
) -> NDArray[np.float32]:
    """How much each place of the last convolutional stage speaks for the class `targets`.

    `images` (n, H, W, 3), `targets` (n,); gives (n, h, w), nothing below 0. The model is used in
    eval mode, left in the mode in which it was found. Raises MissingExtraError without captum.
    """
    with warnings.catch_warnings():
        # captum's progress bars, which are not shown here, miss widgets in a notebook.
        warnings.filterwarnings("ignore", "IProgress not found")
        attribution = need("captum.attr", "explain", "a class activation map")
    training = model.training
    model.eval()
    try:
        method = attribution.LayerGradCam(model, last_stage(model, images[:1], device))
        parts = []
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).to(device).float()
            wanted = torch.from_numpy(targets[start : start + BATCH]).to(device)
            maps = method.attribute(batch.requires_grad_(), wanted, relu_attributions=True)
            parts.append(maps[:, 0].detach().cpu())
    finally:
        model.train(training)
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


@torch.no_grad()
def last_stage(model: nn.Module, images: NDArray[np.uint8], device: str) -> nn.Module:
    """The last module to finish that holds a convolution and gives maps larger than a pixel.

    `images` (n, H, W, 3) are put through `model`. Raises OnecycleError if there is none.
    """
    finished: list[nn.Module] = []

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            finished.append(module)

    handles = [
        module.register_forward_hook(note)
        for module in model.modules()
        if any(isinstance(inner, nn.Conv2d) for inner in module.modules())
    ]
    try:
        model(torch.from_numpy(images).to(device))
    finally:
        for handle in handles:
            handle.remove()
    if not finished:
        raise OnecycleError("this network has no convolution to draw a class activation map of")
    return finished[-1]
