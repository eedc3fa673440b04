"""Pixels moved, mirrored, lit and resized: in compiled loops on a CPU, by torch elsewhere."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def moved(
    pixels: Tensor, rows: Tensor, choices: Tensor, places: tuple[Tensor, ...], pad: int, zero: bool
) -> Tensor:
    """Images `rows` (n,) of `pixels` (M, H, W, 3) uint8, their crops, mirrored or not.

    `choices` (n,) says which of `places`: the first row and column in the image with a border of
    `pad`, and whether it is mirrored, (N,) each. The border is 0, if `zero`, else reflected.
    """
    if pixels.device.type != "cpu":
        return by_index(pixels, rows, choices, places, pad, zero)
    from onecycle.datasets import gather  # slow to import

    images = pixels.new_empty(len(rows), *pixels.shape[1:])
    gather.move(*(t.numpy() for t in (pixels, rows, choices, *places, images)), pad, zero)
    return images


def by_index(
    pixels: Tensor, rows: Tensor, choices: Tensor, places: tuple[Tensor, ...], pad: int, zero: bool
) -> Tensor:
    """As `moved`, by operations that every device has."""
    height, width = pixels.shape[1:3]
    line = torch.arange(height, device=pixels.device)
    top, left, flip = (each[choices, None] for each in places)
    y = line + top - pad
    x = torch.where(flip, height - 1 - line, line) + left - pad
    ys, xs = _inside(y, height, zero), _inside(x, width, zero)
    index = ((rows[:, None] * height + ys)[:, :, None] * width + xs[:, None, :]).view(-1)
    images = pixels.view(-1, 3).index_select(0, index).view(len(rows), height, width, 3)
    if zero:
        images[((ys != y)[:, :, None] | (xs != x)[:, None, :])] = 0
    return images


def _inside(place: Tensor, size: int, zero: bool) -> Tensor:
    """Rows or columns of the image that stand for `place`, which may lie outside of it."""
    if zero:
        return place.clamp(0, size - 1)
    place = place.abs()
    return torch.where(place >= size, 2 * (size - 1) - place, place)


def lit(images: Tensor, light: Tensor, choices: Tensor) -> Tensor:
    """`images` (n, H, W, 3) times one number of their rows of `light`, plus the other, in fp32."""
    if images.device.type == "cpu" and images.dtype is torch.uint8:
        from onecycle.datasets import gather  # slow to import

        made = torch.empty(images.shape)
        told = images.flatten(1), choices, light, made.flatten(1)
        gather.light(*(tensor.numpy() for tensor in told))
        return made
    factors, more = light[choices, :, None, None, None].unbind(1)
    return (images * factors).add_(more)


def resized(images: Tensor, side: int) -> Tensor:
    """(n, H, W, 3) uint8 or float as float (n, side, side, 3), averaged over the pixels that merge.

    Images that have that size already are given back as they are. Rows and columns are multiplied
    by what `torch.nn.functional.interpolate` makes of them, which takes three times as long.
    """
    count, height, width, channels = images.shape
    if height == side:
        return images
    across = _shrinking(width, side, channels, images.device)
    lines = images.float().view(count * height, width * channels) @ across
    down = _shrinking(height, side, 1, images.device).T
    small = down @ lines.view(count, height, side * channels)
    return small.view(count, side, side, channels)


@cache
def _shrinking(size: int, side: int, channels: int, device: torch.device) -> Tensor:
    """What each of `size` pixels in a line counts in `side` ones, times the channels of both."""
    lines = torch.eye(size, device=device)[None, None]
    one = F.interpolate(lines, (size, side), mode="bilinear", antialias=True)[0, 0]
    return torch.kron(one, torch.eye(channels, device=device))
