"""Muon: its step against a plain transcription, and what Newton-Schulz is for."""

import pytest
import torch

from onecycle.errors import RecipeError
from onecycle.machine import Machine
from onecycle.model.build import build
from onecycle.training import optim
from onecycle.training.muon import CUBIC, LINEAR, QUINTIC, Muon, orthogonal


def iterated(matrix, iterations):
    """Newton-Schulz as it is written, on the whole matrix."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm()
    for _ in range(iterations):
        gram = x @ x.T
        x = LINEAR * x + (CUBIC * gram + QUINTIC * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_small_gram_matrix_gives_the_same_as_the_large_products(shape, iterations):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = iterated(matrix, iterations)
    torch.testing.assert_close(orthogonal(matrix, iterations), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        orthogonal(matrix.float(), iterations), expected.float(), rtol=1e-3, atol=1e-4
    )


def test_all_singular_values_come_near_one_in_the_directions_of_the_matrix():
    matrix = torch.randn(16, 100, generator=torch.Generator().manual_seed(2))
    result = orthogonal(matrix, 5)
    assert (torch.linalg.svdvals(matrix) / matrix.norm()).min() < 0.2
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ result @ right.T
    torch.testing.assert_close(inner, torch.diag(inner.diag()), rtol=0, atol=1e-4)


def test_steps_are_nesterov_momentum_made_orthogonal_on_a_filter_bank_of_fixed_norm():
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 4, 3, 3, generator=draw)
    gradients = torch.randn(3, *weight.shape, generator=draw)
    ours = torch.nn.Parameter(weight.clone())
    optimizer = Muon([ours], 0.1, momentum=0.6, iterations=3)
    expected, buffer = weight.clone(), torch.zeros_like(weight)
    for gradient in gradients:
        ours.grad = gradient.clone()
        optimizer.step()
        buffer = 0.6 * buffer + gradient
        ahead = (gradient + 0.6 * buffer).reshape(6, -1)
        expected *= 6**0.5 / expected.norm()
        expected -= 0.1 * iterated(ahead, 3).view_as(weight)
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_step_that_is_not_finite_changes_nothing():
    weight = torch.nn.Parameter(torch.ones(4, 8))
    optimizer = Muon([weight], 0.1, momentum=0.6, iterations=3)
    weight.grad = torch.ones(4, 8)
    optimizer.step()
    before, moment = weight.detach().clone(), optimizer.state[weight]["momentum_buffer"].clone()
    weight.grad = torch.full((4, 8), torch.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(weight, before)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], moment)
    optimizer.found_inf = torch.zeros(())
    weight.grad = torch.ones(4, 8)
    optimizer.step()
    assert not torch.equal(weight, before)


def test_products_in_bf16_give_nearly_the_same_step_of_weights_in_fp32():
    moved = []
    for precision in ("fp32", "bf16"):
        weight = torch.nn.Parameter(torch.ones(32, 64))
        weight.grad = 1e-6 * torch.randn(32, 64, generator=torch.Generator().manual_seed(4))
        optimizer = Muon([weight], 0.1, momentum=0.6, iterations=3)
        with Machine("cpu", precision, 1, "").autocast_updates():
            optimizer.step()
        assert weight.dtype == optimizer.state[weight]["momentum_buffer"].dtype == torch.float32
        moved.append(weight.detach() - torch.ones(32, 64) / 64**0.5)
    off = (moved[0] - moved[1]).norm() / moved[0].norm()
    assert 0 < off < 0.05


@pytest.mark.parametrize("shape", [(32, 64), (64, 32, 3, 3)], ids=["matrix", "convolution"])
@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("iterations", [3, 4, 5, 7])
def test_directions_that_a_gradient_lacks_stay_small(iterations, rank, shape):
    draw = torch.Generator().manual_seed(rank)
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    lie = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    thin = torch.randn(rows, rank, generator=draw), torch.randn(rank, columns, generator=draw)
    weight = torch.nn.Parameter(torch.ones(shape).to(memory_format=lie))
    weight.grad = (thin[0] @ thin[1]).view(shape).contiguous(memory_format=lie)
    optimizer = Muon([weight], 1.0, momentum=0.6, iterations=iterations)
    before = weight.detach() / columns**0.5
    with Machine("cpu", "bf16", 1, "").autocast_updates():
        optimizer.step()
    assert torch.linalg.matrix_norm((weight.detach() - before).flatten(1), 2) < 2


def test_products_of_gradients_are_not_in_fp16():
    with Machine("cpu", "fp16", 1, "").autocast_updates():
        assert not torch.is_autocast_enabled("cpu")


def test_a_vector_is_refused(make_recipe, tiny):
    recipe = make_recipe(
        "optimizers={muon={momentum=0.6,iterations=3}}", 'groups=[{match="*",optimizer="muon"}]'
    )
    with pytest.raises(RecipeError, match=r"group '\*': muon is for matrices"):
        optim.make(recipe, build(recipe.model, tiny, seed=0))
