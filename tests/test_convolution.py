"""Conv3x3: the same convolution by matrix products, where maps are small."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.model import convolution
from onecycle.model.convolution import Conv3x3, Products, patches


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def test_a_patch_is_what_lies_around_a_pixel() -> None:
    x = maps(2, 3, 4, 5)
    rows = patches(x).view(2, 4, 5, 3, 3, 3)
    assert torch.equal(rows[1, 2, 3], x[1, :, 1:4, 2:5].permute(1, 2, 0))
    assert not rows[:, 0, :, 0].any() and not rows[:, :, 4, :, 2].any()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "weight-only"])
@pytest.mark.parametrize("images_together", [1, 2, 5], ids=lambda n: f"{n}-together")
@pytest.mark.parametrize("side", [1, 2, 5], ids=lambda side: f"{side}-pixels")
def test_products_are_the_convolution_and_its_gradients(
    side: int, images_together: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = maps(5, 6, side, side + 1), maps(7, 6, 3, 3)
    monkeypatch.setattr(convolution, "AT_ONCE", images_together * 9 * x[0].numel())
    torch.testing.assert_close(Products.apply(x, weight, whole), F.conv2d(x, weight, padding=1))
    assert torch.autograd.gradcheck(Products.apply, (x, weight, whole))


def test_an_input_that_nothing_learns_from_gets_no_gradient() -> None:
    x, weight = maps(2, 3, 4, 4).detach(), maps(5, 3, 3, 3)
    Products.apply(x, weight, True).sum().backward()
    assert x.grad is None and weight.grad is not None


@pytest.mark.parametrize("amx", [True, False], ids=["amx", "no-amx"])
def test_bf16_products_are_as_near_to_fp32_as_torchs(
    amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    monkeypatch.setattr(convolution, "AMX", amx)
    x, weight = maps(16, 32, 4, 4, dtype=torch.float32), maps(32, 32, 3, 3, dtype=torch.float32)
    exact = torch.autograd.grad(F.conv2d(x, weight, padding=1).square().sum(), (x, weight))
    errors = []
    for ours in (False, True):
        conv = Conv3x3(32, 32) if ours else nn.Conv2d(32, 32, 3, padding=1, bias=False)
        conv.weight.data = weight.data
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16 and _by_products(y) == ours
        found = torch.autograd.grad(y.float().square().sum(), (x, conv.weight))
        errors.append([float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)])
    for theirs, its in zip(*errors, strict=True):
        assert 0 < its < 1.2 * theirs


def test_the_bias_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    conv, x = Conv3x3(3, 4, bias=True), maps(2, 3, 4, 4, dtype=torch.float32)
    y = conv(x)
    assert "Products" in str(y.grad_fn.next_functions)
    torch.testing.assert_close(y, F.conv2d(x, conv.weight, conv.bias, padding=1))


@pytest.mark.parametrize(
    "amx, precision, training, side, products",
    [
        (True, "bf16", True, 6, True),
        (True, "bf16", False, 6, True),
        (True, "bf16", True, 7, False),
        (True, "fp32", True, 5, False),
        (False, "bf16", True, 5, False),
        (False, "bf16", True, 4, True),
        (False, "bf16", False, 4, False),
        (False, "fp32", True, 4, True),
        (False, "fp32", False, 4, False),
    ],
    ids=str,
)
def test_small_maps_are_products_where_that_is_faster(
    amx: bool,
    precision: str,
    training: bool,
    side: int,
    products: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    monkeypatch.setattr(convolution, "AMX", amx)
    x, conv = torch.zeros(2, 3, side, 2), Conv3x3(3, 4).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        assert _by_products(conv(x)) == products
        monkeypatch.setattr(convolution, "X86", False)
        assert not _by_products(conv(x))
    assert list(conv.state_dict()) == ["weight"]


def _by_products(y: Tensor) -> bool:
    return "Products" in str(y.grad_fn)
