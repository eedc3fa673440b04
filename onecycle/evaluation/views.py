"""Test-time augmentation: the views of an image whose logits are averaged.

`crop` is the six views of KellerJordan/cifar10-airbench (`infer_mirror_translate`): the image and
its mirror image, and both moved by a pixel up-left and down-right, these at half the weight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One way to look at an image; the weights of all its views add up to 1."""

    weight: float = 1.0
    shift: int = 0  # pixels, -1 to 1, by which the image is moved down and to the right
    flip: bool = False

    def of(self, images: Tensor) -> Tensor:
        """`images` (N, H, W, 3) seen this way; what moves in is reflected at the edge."""
        size = images.shape[1]
        place = (torch.arange(size, device=images.device) - self.shift).abs()
        place = torch.where(place >= size, 2 * (size - 1) - place, place)
        across = place.flip(0) if self.flip else place
        return images[:, place][:, :, across] if self.shift or self.flip else images


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "flip": (View(0.5), View(0.5, flip=True)),
    "crop": tuple(
        View(0.125 if shift else 0.25, shift, flip)
        for shift in (0, -1, 1)
        for flip in (False, True)
    ),
}


def describe(tta: str) -> str:
    """What `tta` is, in words that go with every figure it gave."""
    if tta == "none":
        return "no test-time augmentation"
    return f"{tta} test-time augmentation, {len(VIEWS[tta])} views"
