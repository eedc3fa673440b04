"""From a curve to a rate: each rule on curves whose answer can be counted on one's fingers."""

import math
from itertools import pairwise

import numpy as np
import pytest

from onecycle.training import suggest
from onecycle.training.suggest import RULES, diverged, flat, read, smooth

TEN = 10.0 ** np.arange(-9, 1)  # ten rates a decade apart


def losses(*values):
    return np.array(values, dtype=float)


def test_smoothing_is_the_weighted_mean_of_all_so_far():
    values = [4.0, 1.0, 7.0, 2.5, 3.0]
    for i, smoothed in enumerate(smooth(values)):
        weights = suggest.SMOOTHING ** np.arange(i, -1, -1)
        assert smoothed == pytest.approx(np.average(values[: i + 1], weights=weights), rel=1e-12)
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50, rel=1e-12)


@pytest.mark.parametrize(
    ("curve", "index"),
    [
        (losses(9, 9, 8, 6, 5, 4.5, 4.2, 4.1, 4, 5), 2),  # the fall from 8 to 6
        (losses(9, 8, 7, 6, 3, 2, 1, 1, 2, 9), 3),
        (losses(9, 8, 9, 10, 11, 12, 13, 14, 15, 16), 0),
    ],
)
def test_steepest_is_where_a_decade_takes_most_off(curve, index):
    assert suggest.steepest(TEN, curve) == index


def test_steepest_counts_by_the_logarithm_of_the_rate():
    """The same fall over two decades is half as steep as over one."""
    assert suggest.steepest(losses(1, 100, 1000), losses(5, 3, 1.5)) == 1


@pytest.mark.parametrize(
    ("curve", "index"),
    [
        # 9 8 7 6 5 4 at 0 to 5: six long, ends at 5, so from -1: -1 + 2 + 1
        (losses(9, 8, 7, 6, 5, 4, 9, 9, 9, 9), 2),
        # 9 7 6 5 4 3 at 0 2 4 5 6 7: six long, ends at 7, from 1: 1 + 2 + 1
        (losses(9, 10, 7, 8, 6, 5, 4, 3, 9, 9), 4),
        # the whole way down: ten long, ends at 9, from -1: -1 + 3 + 1
        (losses(10, 9, 8, 7, 6, 5, 4, 3, 2, 1), 3),
        (losses(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0),
    ],
)
def test_valley_is_half_way_down_the_longest_descent(curve, index):
    assert suggest.valley(TEN, curve) == index


def longest_descent(values):
    """The length of the longest series of falling values, and its earliest end, by trying all."""
    best = (0, -len(values))
    for mask in range(1, 1 << len(values)):
        chosen = [i for i in range(len(values)) if mask >> i & 1]
        falls = all(values[a] > values[b] for a, b in pairwise(chosen))
        if falls and (len(chosen), -chosen[-1]) > best:
            best = (len(chosen), -chosen[-1])
    return best[0], -best[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_descent_is_found_in_noise(seed):
    values = np.random.default_rng(seed).normal(size=10)
    length, end = longest_descent(values)
    expected = max(0, end - length + length // 3 + length // 6)
    assert suggest.valley(TEN, values) == expected


def test_minimum_and_its_tenth():
    curve = losses(9, 8, 7, 6, 5, 4, 3, 2, 5, 9)
    assert suggest.minimum(TEN, curve) == 7
    found = suggest.suggest("minimum/10", RULES["minimum/10"], [judged(TEN, curve)])
    assert found.lrs == (pytest.approx(1e-3),)


def test_slide_stops_where_the_slopes_agree():
    """A line, then a cliff over the last points: the window slides left until both its ends lie
    on the line, and the answer is the left end just before."""
    curve = np.concatenate([np.linspace(5, 4, 31), [4.5, 6, 9, 14]])
    rates = np.logspace(-6, 0, len(curve))
    # Slopes differ from the line's from point 30 on, so from left ends 15 to 19 they disagree.
    assert suggest.slide(rates, curve) == 15
    straight = np.linspace(5, 4, 35)
    assert suggest.slide(rates, straight) == 35 - 1 - 15


def test_the_highest_accuracy_is_the_lowest_error():
    test = suggest.read_epochs([1e-3, 2e-3, 3e-3, 4e-3, 5e-3], [0.2, 0.4, 0.5, 0.45, 0.3])
    for name, rule in suggest.PER_EPOCH.items():
        assert suggest.suggest(name, rule, [test]).lrs == (3e-3,)


# Reading a curve -------------------------------------------------------------------------------


def judged(lrs, values):
    return suggest.Test(np.array(lrs), np.array(values), lrs[0], lrs[-1])


def test_the_ends_of_a_curve_are_left_out():
    lrs = np.logspace(-5, 0, 100).tolist()
    test = read(lrs, [1.0] * 100)
    assert test.lrs.tolist() == lrs[10:95]
    assert (test.first, test.last, test.diverged) == (lrs[0], lrs[-1], False)


def test_what_follows_a_loss_that_is_not_finite_is_left_out():
    lrs = np.logspace(-5, 0, 50).tolist()
    for bad in (math.inf, math.nan):
        test = read(lrs, [1.0] * 40 + [bad] + [1.0] * 9)
        assert test.lrs.tolist() == lrs[4:38]
        assert test.diverged


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0] * 30, False),
        ([2.0] * 30 + [1.0] * 40 + [1.6] * 5, False),  # above 1.5 of the lowest, but not the first
        ([2.0] * 10 + [1.0] * 40 + [1.6] * 40 + [2.5] * 40, True),
        ([2.0] * 10 + [2.9] * 60, False),  # above the first, but not 1.5 of the lowest
        ([2.0] * 10 + [3.1] * 60, True),
        ([2.0, 1.0, math.nan], True),
        ([2.0, 1.0, math.inf], True),
    ],
)
def test_divergence_is_a_loss_above_the_first_and_well_above_the_lowest(values, expected):
    assert diverged(values) is expected


def curve_of(name, count=100):
    """Losses over `count` rates from 1e-5 to 1."""
    x = np.linspace(0, 1, count)
    return {
        "valley": 3 - 2 * np.exp(-(((x - 0.6) / 0.2) ** 2)) + 40 * np.clip(x - 0.8, 0, 1),
        "falls to the end": 3 - 2 * x,
        "falls from the start": 1 + 2 * np.exp(-40 * x) + 40 * np.clip(x - 0.8, 0, 1),
        "level": 3 + 0.01 * np.sin(9 * x),
        "noise": 3 + 0.5 * np.random.default_rng(0).normal(size=count),
        "rises": 3 + 40 * x,
    }[name].tolist()


LRS = np.logspace(-5, 0, 100).tolist()
LOWEST = suggest.Rule(suggest.minimum)


@pytest.mark.parametrize("rule", [name for name in RULES if name != "slide"])
def test_each_rule_finds_a_rate_on_the_way_down_a_plain_valley(rule):
    found = suggest.suggest(rule, RULES[rule], [read(LRS, curve_of("valley"))] * 3)
    assert not found.refused and len(found.lrs) == 3
    assert 1e-4 < found.lr < 10 ** (-5 + 5 * 0.75)


@pytest.mark.parametrize("rule", ["minimum/10"])
def test_a_rate_at_the_high_edge_is_refused_with_what_to_change(rule):
    curve = curve_of("falls to the end")
    found = suggest.suggest(rule, RULES[rule], [read(LRS, curve)])
    assert found.lr is None and found.lrs == ()
    assert found.refused == "at the high edge: raise --end above 1"


def test_the_high_end_is_no_edge_once_the_loss_has_risen_again():
    values = np.concatenate([np.linspace(3, 1, 90), np.linspace(1, 1.4, 10)])
    found = suggest.suggest("lowest", LOWEST, [judged(np.array(LRS), values)])
    assert found.lrs == (LRS[89],)
    values[90:] = 1.1  # not yet by a tenth of the fall
    assert suggest.suggest("lowest", LOWEST, [judged(np.array(LRS), values)]).refused


@pytest.mark.parametrize("rule", ["steepest", "minimum/10"])
def test_a_rate_at_the_low_edge_is_refused_with_what_to_change(rule):
    curve = curve_of("falls from the start")
    if rule == "minimum/10":
        curve = curve_of("valley")[55:] + [30.0] * 55
    found = suggest.suggest(rule, RULES[rule], [read(LRS, curve)])
    assert found.lr is None
    assert found.refused == "at the low edge: lower --start below 1e-05"


def test_one_seed_at_the_edge_refuses_the_rule():
    tests = [read(LRS, curve_of("valley")), read(LRS, curve_of("falls from the start"))]
    assert suggest.suggest("steepest", RULES["steepest"], tests).refused


def test_too_few_rates_are_refused():
    few = read(LRS[:12], curve_of("valley", 12))
    assert "raise --steps" in suggest.suggest("slide", RULES["slide"], [few]).refused
    nothing = read(LRS[:1], [math.nan])
    for name, rule in RULES.items():
        assert "raise --steps" in suggest.suggest(name, rule, [nothing]).refused


def test_the_rate_of_several_seeds_is_their_median_by_logarithm():
    assert suggest.Suggestion("r", (1e-4, 1e-1, 1e-2)).lr == pytest.approx(1e-2)
    assert suggest.Suggestion("r", (1e-4, 1e-2)).lr == pytest.approx(1e-3)
    assert suggest.Suggestion("r", (), "no").lr is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("valley", ""),
        ("falls to the end", ""),
        ("level", "does not fall: raise --end above 1"),
        ("noise", "does not fall: raise --end above 1"),
        ("rises", "rose from the first rate on: lower --start below 1e-05"),
    ],
)
def test_a_curve_without_descent_says_so(name, said):
    curve = curve_of(name)
    ends = next((i + 1 for i in range(100) if diverged(curve[: i + 1])), 100)
    problem = flat([read(LRS[:ends], curve[:ends])])
    assert said in problem and bool(problem) == bool(said)
    assert flat([read(LRS[:1], [math.nan])]).startswith("the loss rose")
