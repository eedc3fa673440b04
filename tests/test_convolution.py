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


@pytest.mark.parametrize("images_together", [1, 2, 5], ids=lambda n: f"{n}-together")
@pytest.mark.parametrize("side", [1, 2, 5], ids=lambda side: f"{side}-pixels")
def test_products_are_the_convolution_and_its_gradients(
    side: int, images_together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = maps(5, 6, side, side + 1), maps(7, 6, 3, 3)
    monkeypatch.setattr(convolution, "AT_ONCE", images_together * 9 * x[0].numel())
    torch.testing.assert_close(Products.apply(x, weight), F.conv2d(x, weight, padding=1))
    assert torch.autograd.gradcheck(Products.apply, (x, weight))


def test_an_input_that_nothing_learns_from_gets_no_gradient() -> None:
    x, weight = maps(2, 3, 4, 4).detach(), maps(5, 3, 3, 3)
    Products.apply(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None


def test_bf16_products_are_as_near_to_fp32_as_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "AMX", True)
    x, weight = maps(16, 32, 4, 4, dtype=torch.float32), maps(32, 32, 3, 3, dtype=torch.float32)
    exact = torch.autograd.grad(F.conv2d(x, weight, padding=1).square().sum(), (x, weight))
    errors = []
    for ours in (False, True):
        conv = Conv3x3(32, 32) if ours else nn.Conv2d(32, 32, 3, padding=1, bias=False)
        conv.weight.data = weight.data
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16 and ("Products" in str(y.grad_fn)) == ours
        found = torch.autograd.grad(y.float().square().sum(), (x, conv.weight))
        errors.append([float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)])
    for theirs, its in zip(*errors, strict=True):
        assert 0 < its < 1.2 * theirs


def test_the_bias_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "AMX", True)
    conv, x = Conv3x3(3, 4, bias=True), torch.zeros(2, 3, 4, 4)
    assert conv.bias is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = conv(x)
    assert torch.equal(y[1, :, 2, 3], conv.bias.bfloat16())


@pytest.mark.parametrize("why", ["no-amx", "fp32", "large-maps"])
def test_elsewhere_it_is_torchs_own(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "AMX", why != "no-amx")
    x, conv = torch.zeros(2, 3, 7 if why == "large-maps" else 4, 4), Conv3x3(3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=why != "fp32"):
        assert "Products" not in str(conv(x).grad_fn)
    assert list(conv.state_dict()) == ["weight"]
