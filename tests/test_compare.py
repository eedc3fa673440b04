"""Intervals and tests: against scipy's other ways, closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from onecycle.evaluation.compare import over_images, over_seeds, spread

VALUES = [0.912, 0.905, 0.909, 0.915, 0.907]


def test_the_interval_of_a_mean_is_the_one_sample_t_test():
    found = spread(VALUES)
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 5 and found.mean == pytest.approx(np.mean(VALUES))
    assert found.std == pytest.approx(np.std(VALUES, ddof=1))


def test_one_seed_has_no_interval():
    found = spread([0.9])
    assert (found.n, found.mean) == (1, 0.9)
    assert found.std is found.low is found.high is None


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        found = spread(list(draw.normal(0.9, 0.01, 4)))
        inside += found.low <= 0.9 <= found.high
    assert 0.93 < inside / 2000 < 0.97


def test_seeds_are_compared_by_welch():
    other = [0.903, 0.897, 0.900]
    found = over_seeds(VALUES, other)
    assert found.difference == pytest.approx(np.mean(VALUES) - np.mean(other))
    assert found.p == pytest.approx(stats.ttest_ind(VALUES, other, equal_var=False).pvalue)
    assert found.low < found.difference < found.high
    assert found.significant == (found.low > 0)
    back = over_seeds(other, VALUES)
    assert (back.difference, back.low) == pytest.approx((-found.difference, -found.high))


def test_seeds_without_any_spread_are_not_compared():
    assert over_seeds([0.5, 0.5], [0.5, 0.5]) is None
    assert over_seeds([0.6, 0.6], [0.5, 0.5]) is None


def test_images_are_compared_by_those_that_only_one_model_gets_right():
    first = np.array([True] * 80 + [False] * 20)
    second = first.copy()
    second[:9] = False  # nine that only the first knows
    second[99] = True  # one that only the second knows
    found = over_images(first, second)
    assert found.difference == pytest.approx(0.08)
    # Exactly: the chance of at most 1 or at least 9 heads in 10 throws.
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)
    # Of those that one alone knows, Clopper and Pearson's interval: the 2.5 % tails of 9 of 10.
    low, high = ((end / 0.1 + 1) / 2 for end in (found.low, found.high))
    assert stats.binom.sf(8, 10, low) == pytest.approx(0.025)
    assert stats.binom.cdf(9, 10, high) == pytest.approx(0.025)


@pytest.mark.parametrize("images", [10, 300, 5000])
def test_the_interval_says_what_the_p_value_says(images):
    for gain in range(9):
        for loss in range(9):
            first, second = np.zeros((2, images + 16), bool)
            first[:gain], second[gain : gain + loss] = True, True
            found = over_images(first, second)
            assert (found.low <= 0 <= found.high) == (not found.significant)
            assert found.low <= found.difference <= found.high


def test_two_models_that_agree_on_few_images_may_differ():
    found = over_images(np.ones(300, bool), np.ones(300, bool))
    assert (found.difference, found.p) == (0, 1) and not found.significant
    # Were one in 81 images such that one model alone knows it, 300 held none in 2.5 % of cases.
    assert found.high == -found.low == pytest.approx(1 - 0.025 ** (1 / 300))
