"""Progressive resolution: training images grow at the recipe's epochs, and only there."""

import numpy as np
import pytest
import torch
from PIL import Image

from onecycle import machine as machines
from onecycle.datasets.pixels import resized
from onecycle.errors import RecipeError
from onecycle.model.layers import MOMENTUM, GhostBatchNorm, Statistics
from onecycle.recipe import book
from onecycle.run import estimate
from onecycle.training.loop import fit
from onecycle.training.schedule import growth, side
from onecycle.training.state import create

GROWING = "resolution=[[0,0.5],[1,0.75],[2.5,1]]"


def sides_seen(data, recipe, machine):
    """The side of the images that each training step sees."""
    state, seen = create(recipe, data, machine, seed=0), []
    state.model.normalize.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    steps = len(list(fit(state, data, recipe, machine, seed=0)))
    return [seen[i * len(seen) // steps] for i in range(steps)]


def test_each_step_sees_the_size_of_its_epoch(tiny, make_recipe, machine):
    # 96 images in batches of 32: 3 steps an epoch, the last size from the middle of the third on.
    assert sides_seen(tiny, make_recipe(GROWING), machine) == [8] * 3 + [12] * 3 + [12] * 2 + [16]
    assert sides_seen(tiny, make_recipe(), machine) == [16] * 9


def test_the_size_stretches_with_the_epochs_and_the_image(make_recipe):
    recipe = book.change(make_recipe(GROWING), [], epochs=6)
    assert [side(recipe, 64, at) for at in (0, 1.99, 2, 4.99, 5, 5.99)] == [32, 32, 48, 48, 64, 64]
    assert side(make_recipe(), 33, 0) == 33


def test_growth_is_told_in_epochs_of_this_run_and_pixels(make_recipe):
    assert growth(make_recipe("resolution=[]"), 100, 32) == []
    assert growth(book.find("fast"), 50_000, 32) == [(0.0, 16), (7.5, 24), (15.0, 32)]
    longer = make_recipe("resolution=[[1.0, 0.5]]", "for_images=400", "epochs=3")
    assert growth(longer, 100, 64) == [(2.0, 32)]


@pytest.mark.parametrize(("size", "to"), [(32, 16), (32, 24), (32, 20), (16, 12)])
def test_resized_images_are_pillows_bilinear_ones(size, to):
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    ours = resized(torch.from_numpy(pixels), to)
    assert ours.shape == (3, to, to, 3) and ours.dtype == torch.float32
    for image, small in zip(pixels, ours, strict=True):
        theirs = np.asarray(Image.fromarray(image).resize((to, to), Image.Resampling.BILINEAR))
        assert np.abs(small.numpy() - theirs).max() <= 1  # Pillow rounds, twice


def test_images_of_full_size_stay_bytes():
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    assert resized(pixels, 16) is pixels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("resolution=[[1,0.5],[1,1]]", "must rise, not be 1, 1"),
        ("resolution=[[0,0.5],[3,1]]", "epoch 3 lies past the last of 3 epochs"),
        ("resolution=[[0,1.5]]", "resolution"),
        ("resolution=[[0,0]]", "resolution"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make_recipe, change, words):
    with pytest.raises(RecipeError, match=words):
        make_recipe(change)


def test_the_expected_time_is_the_mean_over_the_sizes(tiny, make_recipe, machine, monkeypatch):
    seconds = {0.5: 1.0, 0.75: 2.0, 1.0: 4.0}
    monkeypatch.setattr(estimate, "_seconds_at", lambda share, *_: seconds[share])
    found = estimate.image_seconds(make_recipe(GROWING), tiny, machine)
    assert found == pytest.approx((1 * 1.0 + 1.5 * 2.0 + 0.5 * 4.0) / 3)
    assert estimate.image_seconds(make_recipe(), tiny, machine) == 4.0


def test_batches_are_timed_as_large_as_the_time_allows(tiny, make_recipe, machine, monkeypatch):
    """A few images take a second in all; then whoever has the time for two larger steps has one."""
    seen, now = [], [0.0]

    def timed(share, recipe, dataset, machine, batch, feed):
        seen.append(batch)
        now[0] += 1.0
        return 0.1

    monkeypatch.setattr(estimate, "_seconds_at", timed)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(machines, "PIECE_ON_CPU", 8)
    for allowed, batches in ((2.0, [8]), (3.0, [8, 10]), (100.0, [8, 48])):
        seen.clear()
        estimate.image_seconds(make_recipe("batch_size=48"), tiny, machine, allowed)
        assert seen == batches


def test_phases_add_up_and_begin_at_full_size_where_no_knot_says_otherwise(make_recipe):
    assert estimate.phases(make_recipe()) == [(1.0, 1.0)]
    late = estimate.phases(make_recipe("resolution=[[1,0.5],[1.5,1]]"))
    assert [share for _, share in late] == [1.0, 0.5, 1.0]
    assert [part for part, _ in late] == pytest.approx([1 / 3, 1 / 6, 1 / 2])


def test_images_that_become_too_small_for_the_network_are_refused(make_data, make_recipe, machine):
    recipe = make_recipe("model.name=speednet", "resolution=[[0,0.5]]")
    with pytest.raises(RecipeError, match=r"speednet needs at least 16 pixels .* trained on 12"):
        next(fit(create(recipe, make_data(24), machine, 0), make_data(24), recipe, machine, 0))


def test_a_last_batch_of_one_image_at_the_least_size_is_a_step_like_any_other(
    make_data, make_recipe, machine
):
    data = make_data(16, train=33)  # 32, and then one image, whose last maps have one pixel
    recipe = make_recipe("model.name=speednet", "batch_size=32", "ghost_batch=0")
    state = create(recipe, data, machine, seed=0)
    steps = list(fit(state, data, recipe, machine, seed=0))
    assert [step.images for step in steps[:2]] == [32, 1]
    assert all(torch.isfinite(step.loss) for step in steps)
    assert all(torch.isfinite(value).all() for value in state.tensors().values())
    moved = {int(value) for name, value in state.tensors().items() if name.endswith(".step")}
    assert moved == {len(steps)}, "every parameter has a gradient in every step"


def test_a_single_value_says_nothing_of_a_variance(machine):
    norm = GhostBatchNorm(3)
    norm.running_var.fill_(2.0)
    norm(torch.ones(1, 3, 1, 1)).sum().backward()
    assert norm.weight.grad.tolist() == [0, 0, 0] and norm.bias.grad.tolist() == [1, 1, 1]
    Statistics(norm).fold(1, torch.tensor(False))
    assert norm.running_var.tolist() == [2, 2, 2]
    torch.testing.assert_close(norm.running_mean, torch.full((3,), MOMENTUM))


def test_a_pool_as_wide_as_the_full_map_takes_no_smaller_ones(make_data, make_recipe, machine):
    data, recipe = make_data(32), make_recipe("model.head=gap", GROWING)
    with pytest.raises(RecipeError, match=r"davidnet needs at least 32 pixels .* trained on 16"):
        next(fit(create(recipe, data, machine, 0), data, recipe, machine, 0))
