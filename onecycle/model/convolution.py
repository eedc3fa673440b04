"""3x3 convolutions, by matrix products where a CPU's convolutions are slow.

oneDNN's convolutions share out the rows of a map to the tiles of AMX, which maps of a few pixels
leave nearly empty: for 512 channels of 4x4 pixels the gradient of the weights runs at a tenth of
the machine's matrix rate. Products of patches (im2col, Chellapilla et al. 2006) don't care how
wide a map is. bench/LOG.md, section 14, has the measurements.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AMX = torch.cpu._is_amx_tile_supported()
SMALL = 6  # pixels a side, up to which products are faster
AT_ONCE = 10_000_000  # numbers of the patches that are in memory together


class Conv3x3(nn.Conv2d):
    """A convolution of 3x3 pixels at stride 1 that keeps the map's size; (N, C, H, W) in and out.

    Where products are bf16 and the CPU has AMX, maps of up to 6 pixels a side are computed by
    matrix products, which round otherwise than `nn.Conv2d`, and no worse.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not (AMX and _bf16_on_cpu(x) and max(x.shape[-2:]) <= SMALL):
            return super().forward(x)
        y: Tensor = Products.apply(x.bfloat16(), self.weight)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.bfloat16().view(1, -1, 1, 1)


def _bf16_on_cpu(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )


class Products(torch.autograd.Function):
    """The convolution of x (N, C, H, W) with a weight (O, C, 3, 3), padded by a pixel.

    Products have the type of x, and are summed up in the weight's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.sums = weight.dtype
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight.permute(0, 2, 3, 1).flatten(1).t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = _to_input(gradients[0], weight) if ctx.needs_input_grad[0] else None
        return to_x, _to_weight(gradients[0], x, ctx.sums)


def patches(x: Tensor) -> Tensor:
    """The 3x3 surroundings of each pixel, (N*H*W, 9*C), zero outside; x is (N, C, H, W)."""
    images, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    image, row, pixel, _ = padded.stride()
    shape = (images, height, width, 3, 3 * channels)
    around = padded.as_strided(shape, (image, row, pixel, row, 1))
    return around.reshape(images * height * width, 9 * channels)


def _convolve(x: Tensor, matrix: Tensor) -> Tensor:
    """The patches of x (N, C, H, W), each times `matrix` (9*C, O), as maps (N, O, H, W)."""
    rows = [patches(some) @ matrix for some in torch.split(x, _together(x))]
    images, _, height, width = x.shape
    return torch.cat(rows).view(images, height, width, -1).permute(0, 3, 1, 2)


def _to_input(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of x, from that of the output: its convolution with the weight turned around."""
    outputs, inputs = weight.shape[:2]
    turned = weight.permute(0, 2, 3, 1).reshape(outputs, 9, inputs).flip(1)
    return _convolve(gradient, turned.transpose(0, 1).reshape(-1, inputs))


def _to_weight(gradient: Tensor, x: Tensor, sums: torch.dtype) -> Tensor:
    """The gradient of the weight: that of each output times the patch which it came from."""
    outputs, inputs = gradient.shape[1], x.shape[1]
    together = _together(x)
    parts = zip(torch.split(gradient, together), torch.split(x, together), strict=True)
    # Rows are copied: a product with a transposed matrix on its left takes half as long again.
    products = (
        come.permute(0, 2, 3, 1).reshape(-1, outputs).t().contiguous() @ patches(gone)
        for come, gone in parts
    )
    total = next(products).to(sums)
    for product in products:
        total += product
    return total.view(outputs, 3, 3, inputs).permute(0, 3, 1, 2)


def _together(x: Tensor) -> int:
    """Of how many images the patches are made at once."""
    return max(1, AT_ONCE // (9 * x[0].numel()))
