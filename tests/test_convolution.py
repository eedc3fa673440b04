"""Conv3x3: the same convolution of maps side by side, where they are small."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onecycle.model import convolution
from onecycle.model.convolution import Abreast, Conv3x3, apart, wide


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(*shape, generator=generator, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("images", [1, 3, 4, 7], ids=lambda n: f"{n}-images")
def test_wide_maps_are_the_maps_in_rows_with_zeros_between(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "ABREAST", 3)
    x = maps(images, 2, 4, 5).detach()
    across = wide(x)
    assert across.shape == (-(-images // 3), 2, 4, 18)
    assert across.is_contiguous(memory_format=torch.channels_last)
    assert not across[..., 5::6].any() and across.count_nonzero() == x.count_nonzero()
    last = images - 1
    assert torch.equal(across[last // 3, :, :, last % 3 * 6 :][..., :5], x[last])
    assert torch.equal(apart(across, x), x)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "weight-only"])
@pytest.mark.parametrize("abreast", [1, 2, 5, 32], ids=lambda n: f"{n}-abreast")
@pytest.mark.parametrize("side", [1, 2, 5], ids=lambda side: f"{side}-pixels")
def test_maps_abreast_give_the_convolution_and_its_gradients(
    side: int, abreast: int, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = maps(5, 6, side, side + 1), maps(7, 6, 3, 3)
    monkeypatch.setattr(convolution, "ABREAST", abreast)

    def convolved(x: Tensor, weight: Tensor) -> Tensor:
        return Abreast.apply(x, weight, weight.detach(), whole)

    torch.testing.assert_close(convolved(x, weight), F.conv2d(x, weight, padding=1))
    assert torch.autograd.gradcheck(convolved, (x, weight))


def test_an_input_that_nothing_learns_from_gets_no_gradient() -> None:
    x, weight = maps(2, 3, 4, 4).detach(), maps(5, 3, 3, 3)
    Abreast.apply(x, weight, weight.detach(), True).sum().backward()
    assert x.grad is None and weight.grad is not None


@pytest.mark.parametrize("amx", [True, False], ids=["amx", "no-amx"])
def test_bf16_maps_abreast_are_as_near_to_fp32_as_torchs(
    amx: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    monkeypatch.setattr(convolution, "AMX", amx)
    x, weight = maps(40, 32, 3, 3, dtype=torch.float32), maps(32, 32, 3, 3, dtype=torch.float32)
    exact = torch.autograd.grad(F.conv2d(x, weight, padding=1).square().sum(), (x, weight))
    errors = []
    for ours in (False, True):
        conv = Conv3x3(32, 32) if ours else nn.Conv2d(32, 32, 3, padding=1, bias=False)
        conv.weight.data = weight.data
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16 and _abreast(y) == ours
        found = torch.autograd.grad(y.float().square().sum(), (x, conv.weight))
        errors.append([float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)])
    for theirs, its in zip(*errors, strict=True):
        assert 0 < its < 1.2 * theirs


def test_the_bias_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    conv, x = Conv3x3(3, 4, bias=True), maps(2, 3, 3, 3, dtype=torch.float32)
    y = conv(x)
    assert "Abreast" in str(y.grad_fn.next_functions)
    torch.testing.assert_close(y, F.conv2d(x, conv.weight, conv.bias, padding=1))


def test_a_weight_is_rounded_once_a_step_and_anew_when_it_moved() -> None:
    conv = Conv3x3(3, 4).train()
    twin = copy.deepcopy(conv)
    twin.weight.data, twin.made = conv.weight.data, conv.made  # as lanes share it
    assert copy.deepcopy(conv).made.weight is not conv.weight
    first = [each.rounded(torch.bfloat16) for each in (conv, twin)]
    assert all(
        each.rounded(torch.bfloat16) is it for each, it in zip((conv, twin), first, strict=True)
    )
    with torch.no_grad():
        conv.weight.add_(1)
    for each in (conv, twin):
        assert torch.equal(each.rounded(torch.bfloat16), conv.weight.bfloat16())
    conv.weight.data.add_(1)  # which leaves no trace, as fused optimizers do
    twin.train()
    for each in (conv, twin):
        assert torch.equal(each.rounded(torch.bfloat16), conv.weight.bfloat16())
        assert each.rounded(torch.float32).dtype == torch.float32
    conv.eval()
    conv.weight.data = torch.zeros_like(conv.weight)
    assert not conv.rounded(torch.bfloat16).any()


@pytest.mark.parametrize(
    "amx, precision, training, side, abreast",
    [
        (True, "bf16", True, 10, True),
        (True, "bf16", True, 11, False),
        (True, "bf16", False, 6, True),
        (True, "bf16", False, 7, False),
        (True, "fp32", True, 4, False),
        (True, "fp32", True, 3, True),
        (False, "bf16", True, 4, False),
        (False, "bf16", True, 3, True),
        (False, "bf16", False, 3, False),
        (False, "fp32", True, 3, True),
        (False, "fp32", False, 3, False),
    ],
    ids=str,
)
def test_small_maps_are_abreast_where_that_is_faster(
    amx: bool,
    precision: str,
    training: bool,
    side: int,
    abreast: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convolution, "X86", True)
    monkeypatch.setattr(convolution, "AMX", amx)
    x, conv = torch.zeros(2, 3, side, 2), Conv3x3(3, 4).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        assert _abreast(conv(x)) == abreast
        monkeypatch.setattr(convolution, "X86", False)
        assert not _abreast(conv(x))
    assert list(conv.state_dict()) == ["weight"]


def _abreast(y: Tensor) -> bool:
    return "Abreast" in str(y.grad_fn)
