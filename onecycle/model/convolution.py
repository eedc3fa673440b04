"""3x3 convolutions, by matrix products where a CPU's convolutions are slow.

oneDNN's convolutions of maps of a few pixels leave much of a CPU idle, most of all that for the
gradient of the weights: with AMX, for 512 channels of 4x4 pixels, nine tenths. Products of patches
(im2col, Chellapilla et al. 2006) don't care how wide a map is. What is faster where, and by how
much, is in bench/LOG.md, section 14.
"""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AMX = torch.cpu._is_amx_tile_supported()
X86 = platform.machine().lower() in ("x86_64", "amd64")  # elsewhere nothing was measured
SMALL_FOR_AMX = 6  # pixels a side, up to which products are faster in bf16 with AMX
SMALL = 4  # up to which the product for the gradient of the weights is on any x86
AT_ONCE = 10_000_000  # numbers of the patches that are in memory together


class Conv3x3(nn.Conv2d):
    """A convolution of 3x3 pixels at stride 1 that keeps the map's size; (N, C, H, W) in and out.

    On an x86 CPU the gradient of its weights for maps of up to 4 pixels a side is a matrix product,
    and where products are bf16 and there is AMX, all of it is for up to 6 pixels: they round
    otherwise than `nn.Conv2d`, and no worse.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        whole = AMX and dtype is torch.bfloat16
        small = max(x.shape[-2:]) <= (SMALL_FOR_AMX if whole else SMALL)
        if not (X86 and x.device.type == "cpu" and small and (whole or self.training)):
            return super().forward(x)
        y: Tensor = Products.apply(x.to(dtype), self.weight, whole)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias.to(dtype).view(1, -1, 1, 1)


class Products(torch.autograd.Function):
    """The convolution of x (N, C, H, W) with a weight (O, C, 3, 3), padded by a pixel.

    If `whole`, all of it is matrix products, else the gradient of the weight alone. They have the
    type of x, and are summed up in the weight's.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, whole: bool) -> Tensor:
        ctx.sums, ctx.whole = weight.dtype, whole
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        if not whole:
            return F.conv2d(x, weight, padding=1)
        return _convolve(x, weight.permute(0, 2, 3, 1).flatten(1).t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = _to_input(gradients[0], weight, ctx.whole)
        return to_x, _to_weight(gradients[0], x, ctx.sums), None


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


def _to_input(gradient: Tensor, weight: Tensor, whole: bool) -> Tensor:
    """The gradient of x, from that of the output: its convolution with the weight turned around."""
    if not whole:
        return F.conv_transpose2d(gradient, weight, padding=1)
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
