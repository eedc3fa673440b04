"""TrivialAugment and colour jitter: drawn here for each image, and computed by kornia.

TrivialAugment (Müller and Hutter, ICCV 2021) does one operation to an image, each as likely, of a
strength that is one of 31. The ranges are its wide ones, but translations reach half of the image,
whatever its size. What comes into view is filled. Kornia's functions are called once for each kind
of operation; its own random choices aren't used, because they depend on the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from onecycle.errors import need
from onecycle.recipe.schema import AugmentSpec

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
SHADES = ("brightness", "contrast", "saturation", "sharpness", "posterize", "solarize")
OPERATIONS = (*MOVES, *SHADES, "auto_contrast", "equalize", "identity")
STRENGTHS = 31
SHEAR, TRANSLATE, ROTATE, FACTOR, BITS = 0.99, 0.5, 135.0, 0.99, 6.0  # at the full strength
HUE = 0.25  # of a turn at a colour jitter of 1; torchvision's examples have such a proportion

Kinds = dict[str, Callable[[Tensor, Tensor], Tensor]]


@dataclass(frozen=True)
class Policy:
    """One epoch's choices, a row for each image."""

    operation: Tensor  # (N,) int64: which of OPERATIONS
    strength: Tensor  # (N,) fp32, from -1 to 1
    colour: Tensor  # (N, 4) fp32, from -1 to 1: brightness, contrast, saturation, hue

    def to(self, device: str) -> "Policy":
        """The policy with its tensors on `device`."""
        return Policy(*(tensor.to(device) for tensor in vars(self).values()))


def draw(
    spec: AugmentSpec, count: int, trivial: np.random.Generator, colour: np.random.Generator
) -> Policy | None:
    """What is drawn for `count` images; None if the recipe has neither.

    Raises MissingExtraError if kornia is not there.
    """
    if spec.policy == "none" and not spec.colour:
        return None
    _kornia("enhance")
    operation = trivial.integers(0, len(OPERATIONS), count)
    strength = trivial.integers(0, STRENGTHS, count) / (STRENGTHS - 1)
    strength *= trivial.choice([-1, 1], count)
    return Policy(
        torch.from_numpy(operation),
        torch.from_numpy(strength).float(),
        torch.from_numpy(colour.uniform(-1, 1, (count, 4))).float(),
    )


def apply(
    spec: AugmentSpec, images: Tensor, policy: Policy, choices: Tensor, fill: Tensor
) -> Tensor:
    """`images` (n, H, W, 3) uint8 as fp32 on the same scale, by rows `choices` (n,) of `policy`."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    if spec.policy == "trivial":
        operation, strength = policy.operation[choices], policy.strength[choices]
        colour = fill.float() / 255
        for number, name in enumerate(OPERATIONS[:-1]):
            rows = (operation == number).nonzero()[:, 0]
            if len(rows):
                pixels[rows] = _operate(name, pixels[rows], strength[rows], colour)
    if spec.colour:
        pixels = _jitter(pixels, spec.colour * policy.colour[choices])
    return pixels.clamp(0, 1).mul(255).permute(0, 2, 3, 1).contiguous()


def _operate(name: str, pixels: Tensor, strength: Tensor, fill: Tensor) -> Tensor:
    """Operation `name` on `pixels` (n, 3, H, W) from 0 to 1, of `strength` (n,) from -1 to 1."""
    enhance = _kornia("enhance")
    if name in MOVES:
        return _move(name, pixels, strength, fill)
    if name == "auto_contrast":
        flat = pixels.flatten(2).amax(2) == pixels.flatten(2).amin(2)
        spread: Tensor = enhance.normalize_min_max(pixels)
        return torch.where(flat[..., None, None], pixels, spread)
    if name == "equalize":
        equalized: Tensor = enhance.equalize(pixels)
        return equalized
    if name == "posterize":
        posterized: Tensor = enhance.posterize(pixels, 8 - (BITS * strength.abs()).round().int())
        return posterized
    if name == "solarize":
        solarized: Tensor = enhance.solarize(pixels, 1 - strength.abs())
        return solarized
    return _shades(enhance)[name](pixels, 1 + FACTOR * strength)


def _shades(enhance: ModuleType) -> Kinds:
    """What blends with black, the mean grey, grey and a smooth image, as Pillow does."""
    return {
        "brightness": enhance.adjust_brightness_accumulative,
        "contrast": enhance.adjust_contrast_with_mean_subtraction,
        "saturation": enhance.adjust_saturation_with_gray_subtraction,
        "sharpness": enhance.sharpness,
    }


def _move(name: str, pixels: Tensor, strength: Tensor, fill: Tensor) -> Tensor:
    """`pixels` sheared, shifted or turned about their centre."""
    size = pixels.shape[-1]
    linear = torch.eye(2, device=pixels.device).repeat(len(pixels), 1, 1)
    shift = torch.zeros(len(pixels), 2, device=pixels.device)
    if name == "rotate":
        angle = torch.deg2rad(ROTATE * strength)
        rows = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1)
        linear = rows.view(-1, 2, 2)
    elif name == "shear_x":
        linear[:, 0, 1] = SHEAR * strength
    elif name == "shear_y":
        linear[:, 1, 0] = SHEAR * strength
    else:
        shift[:, int(name == "translate_y")] = TRANSLATE * size * strength
    centre = torch.full((2,), (size - 1) / 2, device=pixels.device)
    shift = shift + centre - linear @ centre
    matrix = torch.cat([linear, shift[:, :, None]], 2)
    moved: Tensor = _kornia("geometry.transform").warp_affine(
        pixels, matrix, (size, size), padding_mode="fill", fill_value=fill
    )
    return moved


def _jitter(pixels: Tensor, colour: Tensor) -> Tensor:
    """`pixels` with brightness, contrast and saturation times 1 + `colour`, and another hue."""
    enhance = _kornia("enhance")
    shades = _shades(enhance)
    for column, name in enumerate(("brightness", "contrast", "saturation")):
        pixels = shades[name](pixels, 1 + colour[:, column])
    turned: Tensor = enhance.adjust_hue(pixels.clamp(0, 1), 2 * torch.pi * HUE * colour[:, 3])
    return turned


def _kornia(part: str) -> ModuleType:
    return need(f"kornia.{part}", "policies", "augment.policy or augment.colour")
