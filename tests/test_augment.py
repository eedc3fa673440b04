"""Augmentation: exact against a slow reference, fair in every draw, a function of (seed, epoch)."""

import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from onecycle.datasets import augment
from onecycle.datasets.pixels import by_index, moved
from onecycle.recipe.schema import AugmentSpec

FIELDS = ("order", "top", "left", "flip", "cut_top", "cut_left", "cut_side")
ALL = AugmentSpec(pad=4, pad_mode="reflect", flip="alternating", cutout=8, cutout_probability=0.7)
FILL = torch.tensor([1, 120, 254], dtype=torch.uint8)


def columns(spec, count, size=32, seed=0, epoch=0):
    """The plan's choices as a dictionary of numpy arrays."""
    plan = augment.draw(spec, count, size, seed, epoch)
    return {name: getattr(plan, name).numpy() for name in FIELDS}


def slow(spec, image, choices, i):
    """Image `i`'s augmentation, one obvious step after another."""
    pad, size = spec.pad, len(image)
    mode = {"zero": "constant", "reflect": "reflect"}[spec.pad_mode]
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    top, left = choices["top"][i], choices["left"][i]
    result = padded[top : top + size, left : left + size]
    if choices["flip"][i]:
        result = result[:, ::-1]
    result = result.copy()
    top, left, side = (choices[name][i] for name in ("cut_top", "cut_left", "cut_side"))
    for y in range(top, top + side):
        for x in range(left, left + side):
            if 0 <= y < size and 0 <= x < size:
                result[y, x] = FILL.numpy()
    return result


def assert_uniform(values, cells):
    """Chi-square: whole numbers from 0 to `cells`, each as likely as the next."""
    counts = np.bincount(values, minlength=cells)
    assert len(counts) == cells
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
@pytest.mark.parametrize("pad", [0, 4, 15])
@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
@pytest.mark.parametrize(("cutout", "probability"), [(0, 1), (7, 1), (8, 0.5), (8, 0), (15, 1)])
@pytest.mark.parametrize(
    ("epoch", "side", "place"), [(0, "fixed", "inside"), (1, "random", "clipped")]
)
def test_apply_equals_the_slow_reference(
    pad, pad_mode, flip, cutout, probability, epoch, side, place
):
    spec = AugmentSpec(
        pad=pad,
        pad_mode=pad_mode,
        flip=flip,
        cutout=cutout,
        cutout_probability=probability,
        cutout_side=side,
        cutout_place=place,
    )
    draw = np.random.default_rng(epoch)
    pixels = draw.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    before = pixels.copy()
    rows = draw.permutation(40)[:24]  # a split of 24 of the 40 images
    positions = draw.permutation(24)[:20]  # a batch of 20 of them
    choices = columns(spec, 24, 16, epoch=epoch)
    images = augment.apply(
        spec,
        torch.from_numpy(pixels),
        torch.from_numpy(rows[positions]),
        torch.from_numpy(positions),
        augment.draw(spec, 24, 16, 0, epoch),
        FILL,
    )
    expected = np.stack([slow(spec, pixels[rows[i]], choices, i) for i in positions])
    assert images.dtype == torch.uint8
    np.testing.assert_array_equal(images.numpy(), expected)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("pad", [0, 4, 15])
def test_pixels_are_moved_alike_on_every_device(pad, zero):
    draw = np.random.default_rng(pad)
    pixels = torch.from_numpy(draw.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8))
    rows, choices = torch.from_numpy(draw.integers(0, [[40], [24]], (2, 20)))
    plan = augment.draw(AugmentSpec(pad=pad, flip="random"), 24, 16, 0, 0)
    told = pixels, rows, choices, (plan.top, plan.left, plan.flip), pad, zero
    assert plan.flip.any() and not plan.flip.all()
    assert torch.equal(by_index(*told), moved(*told))


def test_images_are_untouched_when_everything_is_off():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8))
    plan = augment.draw(AugmentSpec(), 9, 16, 0, 1)
    images = augment.apply(AugmentSpec(), pixels, torch.arange(9), torch.arange(9), plan, FILL)
    assert torch.equal(images, pixels)


@pytest.mark.parametrize("pad", [1, 4])
def test_every_offset_is_equally_likely(pad):
    choices = columns(AugmentSpec(pad=pad), 100_000, seed=1)
    side = 2 * pad + 1
    assert_uniform(choices["top"] * side + choices["left"], side**2)


@pytest.mark.parametrize(("cutout", "size"), [(8, 32), (16, 32), (1, 16)])
def test_every_place_of_the_cutout_is_equally_likely_edges_included(cutout, size):
    choices = columns(AugmentSpec(cutout=cutout), 200_000, size, seed=2)
    places = size - cutout + 1
    assert_uniform(choices["cut_top"] * places + choices["cut_left"], places**2)


@pytest.mark.parametrize("place", ["inside", "clipped"])
def test_every_side_of_a_random_cutout_is_equally_likely_and_so_is_its_every_place(place):
    spec = AugmentSpec(cutout=6, cutout_side="random", cutout_place=place)
    choices = columns(spec, 300_000, 16, seed=3)
    assert_uniform(choices["cut_side"] - 1, 6)
    for side in range(1, 7):
        chosen = choices["cut_side"] == side
        first, places = (0, 17 - side) if place == "inside" else (1 - side, 15 + side)
        top, left = choices["cut_top"][chosen] - first, choices["cut_left"][chosen] - first
        assert_uniform(top * places + left, places**2)


@pytest.mark.parametrize("side", ["fixed", "random"])
def test_a_clipped_cutout_covers_the_edges_as_often_as_the_middle(side):
    count, size = 200_000, 16
    spec = AugmentSpec(cutout=6, cutout_side=side, cutout_place="clipped")
    choices = columns(spec, count, size, seed=4)
    line = np.arange(size)[:, None]
    top, end = choices["cut_top"], choices["cut_top"] + choices["cut_side"]
    covered = ((line >= top) & (line < end)).mean(axis=1)
    assert np.abs(covered - covered.mean()).max() < 5 * np.sqrt(0.25 / count)


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_half_of_the_images_are_flipped(flip):
    for epoch in range(2):
        choices = columns(AugmentSpec(flip=flip), 100_000, seed=3, epoch=epoch)
        assert_uniform(choices["flip"].astype(int), 2)


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_cutout_comes_with_its_probability_and_as_evenly(probability):
    spec = AugmentSpec(cutout=8, cutout_probability=probability)
    count = 200_000
    choices = columns(spec, count, seed=4)
    cut = choices["cut_side"] > 0
    expected = [count * (1 - probability), count * probability]
    assert stats.chisquare([(~cut).sum(), cut.sum()], expected).pvalue > 1e-4
    assert_uniform(choices["cut_top"][cut] * 25 + choices["cut_left"][cut], 25**2)


@pytest.mark.parametrize(("probability", "share"), [(0, 0), (1, 1)])
def test_cutout_probability_zero_is_never_and_one_is_always(probability, share):
    spec = AugmentSpec(cutout=8, cutout_probability=probability)
    assert (columns(spec, 10_000)["cut_side"] == 8).mean() == share


def test_order_is_a_permutation_that_differs_by_epoch_and_seed():
    orders = [
        tuple(columns(ALL, 500, seed=seed, epoch=epoch)["order"])
        for seed in range(5)
        for epoch in range(5)
    ]
    assert all(sorted(order) == list(range(500)) for order in orders)
    assert len(set(orders)) == len(orders)


def test_every_image_is_equally_likely_to_come_first():
    firsts = [columns(AugmentSpec(), 8, epoch=epoch)["order"][0] for epoch in range(4000)]
    assert_uniform(np.array(firsts), 8)


def test_choices_of_an_image_are_independent_of_each_other_and_of_other_epochs():
    spec = AugmentSpec(pad=4, flip="random", cutout=8)
    drawn = [columns(spec, 50_000, seed=s, epoch=e) for s, e in ((0, 0), (0, 1), (1, 0))]
    varying = [name for name in FIELDS if name != "cut_side"]
    correlations = np.corrcoef([choices[name] for choices in drawn for name in varying])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 5 / np.sqrt(50_000)


def test_random_streams_do_not_overlap():
    kinds = (augment.ORDER, augment.CROP, augment.FLIP, augment.CUTOUT)
    drawn = [
        augment._stream(seed, epoch, kind).integers(0, 2**63, 1000)
        for seed in range(3)
        for epoch in range(3)
        for kind in kinds
    ]
    assert len(np.unique(drawn)) == 3 * 3 * 4 * 1000


@pytest.mark.parametrize("seed", [0, 7])
def test_alternating_flips_each_image_in_one_of_any_two_successive_epochs(seed):
    spec = AugmentSpec(flip="alternating")
    flips = [columns(spec, 1000, seed=seed, epoch=epoch)["flip"] for epoch in range(6)]
    for now, following in pairwise(flips):
        np.testing.assert_array_equal(now, ~following)


def test_a_plan_is_a_function_of_seed_and_epoch_only():
    first = columns(ALL, 300, seed=5, epoch=3)
    np.random.seed(0)
    torch.manual_seed(0)
    columns(ALL, 300, seed=6, epoch=4)
    again = columns(ALL, 300, seed=5, epoch=3)
    for name in FIELDS:
        np.testing.assert_array_equal(first[name], again[name])
    for seed, epoch in ((5, 4), (6, 3)):
        other = columns(ALL, 300, seed=seed, epoch=epoch)
        for name in FIELDS:
            assert (first[name] != other[name]).any(), name


def test_a_draw_leaves_the_global_random_states_alone():
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    augment.draw(ALL, 300, 32, 0, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"pad": 2}, {"top", "left"}),
        ({"pad_mode": "zero"}, set()),
        ({"flip": "none"}, {"flip"}),
        ({"cutout": 4}, {"cut_top", "cut_left", "cut_side"}),
        ({"cutout_probability": 0.2}, {"cut_side"}),
    ],
)
def test_one_option_moves_no_other_draw(change, moved):
    before = columns(ALL, 1000, seed=1, epoch=1)
    after = columns(ALL.model_copy(update=change), 1000, seed=1, epoch=1)
    differing = {name for name in FIELDS if (before[name] != after[name]).any()}
    assert differing == moved


def test_lower_cutout_probability_keeps_the_places_of_the_squares_left():
    before = columns(ALL, 1000)
    after = columns(ALL.model_copy(update={"cutout_probability": 0.2}), 1000)
    kept = after["cut_side"] > 0
    assert 0 < kept.sum() < (before["cut_side"] > 0).sum()
    np.testing.assert_array_equal(after["cut_top"][kept], before["cut_top"][kept])


def test_drawing_and_applying_does_60_000_images_a_second():
    """Plan and application together, batches of 512, the best of 20 tries on a single core."""
    count, batch = 8192, 512
    pixels = torch.zeros((count, 32, 32, 3), dtype=torch.uint8)
    spec = AugmentSpec(pad=4, pad_mode="reflect", flip="random", cutout=8)

    def images_per_second(epoch):
        start = time.perf_counter()
        plan = augment.draw(spec, count, 32, 0, epoch)
        for positions in plan.order.split(batch):
            augment.apply(spec, pixels, positions, positions, plan, FILL)
        return count / (time.perf_counter() - start)

    rates = []
    while len(rates) < 20 and max(rates, default=0) < 60_000:
        rates.append(images_per_second(epoch=len(rates)))
    assert max(rates) >= 60_000
