"""A first convolution whose filters come from the data: patch whitening (Page 2019)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.model import tiled
from onecycle.model.layers import Normalize

EPS = 5e-4  # added to the patches' variances, so that directions without any aren't blown up
PATCHES = 200_000  # enough for the covariance of a patch's few dozen numbers


class Whitening(nn.Conv2d):
    """Filters that decorrelate patches, each with its negative; nothing of it is learnt.

    The `outputs` / 2 directions of most variance, scaled to variance one, and then the same with
    the other sign, as in tysam-code/hlb-CIFAR10, so that a rectifier after it loses nothing. As
    there is nothing to learn, no gradient is computed with respect to its output.
    """

    def __init__(self, outputs: int, kernel: int) -> None:
        super().__init__(3, outputs, kernel, bias=False)
        filters = self.weight.detach()
        del self.weight
        first = filters[: outputs // 2]
        self.register_buffer("weight", torch.cat([first, -first]))  # until it learns them

    @torch.no_grad()
    def learn(self, images: Tensor) -> None:
        """Take the filters from standardized `images` (N, 3, H, W)."""
        kernel = int(self.kernel_size[0])
        patches = F.unfold(images, kernel).transpose(1, 2)
        rows = patches.reshape(-1, patches.shape[2])
        rows = rows[:: -(-len(rows) // PATCHES)].double()
        # eigh gives the variances in rising order.
        variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        filters = (directions / (variances + EPS).sqrt()).flip(1).T[: self.out_channels // 2]
        # A direction's sign is chance: its largest number is positive, on every machine.
        largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
        filters = (filters * largest.sign()).view(-1, 3, kernel, kernel)
        self.weight.copy_(torch.cat([filters, -filters]))


def whiten_activate(pixels: Tensor, normalize: Normalize, whitening: Whitening) -> Tensor:
    """SiLU of `whitening` of `normalize` of `pixels` (N, H, W, 3).

    One after another, but where tiles are used, where all is done at once.
    """
    small = whitening.kernel_size == (2, 2) and whitening.out_channels == 24
    if small and tiled.here(pixels) and pixels.shape[2] > 4 and not pixels.requires_grad:
        from onecycle.model.compiled import stem  # slow to import

        given = pixels.contiguous(), whitening.weight, normalize.mean, normalize.std
        return stem.whiten_activate(*given).permute(0, 3, 1, 2)
    return F.silu(whitening(normalize(pixels)))
