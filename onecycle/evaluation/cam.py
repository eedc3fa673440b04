"""Where a network looked: Grad-CAM (Selvaraju et al. 2017) by captum."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.errors import OnecycleError, need
from onecycle.model import anatomy

BATCH = 100  # images at once


def class_maps(
    model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.int64], device: str
) -> NDArray[np.float32]:
    """How much each place of the last convolutional stage speaks for the class `targets`.

    `images` (n, H, W, 3), `targets` (n,); gives (n, H, W), nothing below 0: each place stands at
    the pixel in the middle of what it sees, and between places it is interpolated. The model is
    used in eval mode, left in the mode in which it was found. Raises MissingExtraError without
    captum.
    """
    with warnings.catch_warnings():
        # captum's progress bars, which are not shown here, miss widgets in a notebook.
        warnings.filterwarnings("ignore", "IProgress not found")
        attribution = need("captum.attr", "explain", "a class activation map")
    training = model.training
    model.eval()
    try:
        name = last_stage(model, images[:1], device)
        method = attribution.LayerGradCam(model, model.get_submodule(name))
        parts = []
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).to(device).float()
            wanted = torch.from_numpy(targets[start : start + BATCH]).to(device)
            maps = method.attribute(batch.requires_grad_(), wanted, relu_attributions=True)
            parts.append(maps[:, 0].detach().cpu())
    finally:
        model.train(training)
    side = images.shape[1]
    inside = [row for row in anatomy.layers(model, side) if f"{row.name}.".startswith(f"{name}.")]
    result: NDArray[np.float32] = on_pixels(torch.cat(parts), inside[-1], side).numpy()
    return result


def on_pixels(maps: Tensor, layer: anatomy.Layer, side: int) -> Tensor:
    """`maps` (n, h, w) of what `layer` gives, as (n, side, side), for images of so many pixels.

    Stretching them over the image instead would shift them: valid convolutions and pools that
    leave out an odd row see the bottom right corner less.
    """
    places = (torch.arange(side) - layer.first_center) / layer.effective_stride
    places = places / (maps.shape[1] - 1) * 2 - 1  # as grid_sample counts: -1 first, 1 last
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)
    grid = grid.expand(len(maps), side, side, 2)
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=True)[:, 0]


@torch.no_grad()
def last_stage(model: nn.Module, images: NDArray[np.uint8], device: str) -> str:
    """Name of the last module to finish that has a convolution and gives maps larger than a pixel.

    `images` (n, H, W, 3) are put through `model`. Raises OnecycleError if there is none.
    """
    finished: list[str] = []

    def noted(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                finished.append(name)

        return note

    handles = [
        module.register_forward_hook(noted(name))
        for name, module in model.named_modules()
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
