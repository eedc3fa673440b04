"""Steering: what a step did to the weights, and the rate that follows from it."""

import math

import pytest
import torch
from torch import nn

from onecycle.training import steer
from onecycle.training.steer import SHARE, Helm, Updates, astray, read, steered


def model_of(*norms):
    """A model with a matrix of each norm, a vector, and a frozen matrix."""
    model = nn.ParameterList([nn.Parameter(torch.tensor([[norm, 0.0]])) for norm in norms])
    model.append(nn.Parameter(torch.ones(3)))
    model.append(nn.Parameter(torch.ones(2, 2), requires_grad=False))
    return model


def change(model, *amounts):
    with torch.no_grad():
        for weight, amount in zip(model, amounts, strict=False):
            weight[0, 1] += amount
        for rest in list(model)[len(amounts) :]:
            rest.add_(100)


def test_an_update_is_the_median_of_what_changed():
    model = model_of(1.0, 2.0, 4.0)
    updates = Updates(model)
    change(model, 0.5, 0.4, 0.4)  # 0.5, 0.2 and 0.1 of themselves
    assert updates.look() == pytest.approx(0.2)
    assert updates.look() == 0, "nothing has changed since"


def test_weights_of_zeros_and_weights_that_stay_do_not_count():
    model = model_of(0.0, 2.0, 4.0, 1.0, 1.0, 1e30)
    updates = Updates(model)
    change(model, 0.1, 0.4, 0.0, 0.0, 0.0, math.inf)
    assert updates.look() == pytest.approx(0.2)
    assert Updates(nn.BatchNorm2d(3)).look() == 0


def test_where_a_rate_has_a_constant_effect_the_share_rises_and_holds():
    helm = Helm()
    for step in range(1, 31):
        helm.turn(5 * helm.lr)
        assert 5 * helm.lr == pytest.approx(steer.SHARE * min(1, step / steer.RISE))


def test_a_rate_follows_its_effect_and_not_each_leap_of_it():
    helm = Helm()
    for _ in range(20):
        helm.turn(5 * helm.lr)
    helm.turn(20 * helm.lr)
    assert helm.lr == pytest.approx(steer.SHARE / 5 / 4 ** (1 - steer.MEMORY))
    for _ in range(40):
        helm.turn(20 * helm.lr)
    assert helm.lr == pytest.approx(steer.SHARE / 20, rel=1e-3)


@pytest.mark.parametrize("update", [0.0, math.nan, math.inf])
def test_a_step_that_changed_nothing_says_nothing(update):
    helm = Helm()
    helm.turn(update)
    assert helm.lr == steer.FIRST
    helm.turn(5 * helm.lr)
    assert 5 * helm.lr == pytest.approx(steer.SHARE * 2 / steer.RISE)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        (("schedule.peak_epoch=12", "epochs=24"), 36),  # three steps an epoch
        (("schedule.peak_epoch=16", "epochs=24"), 45),
        (("schedule.peak_epoch=2", "epochs=24"), 15),
        (('schedule={kind="constant",lr_peak=0.1}',), 15),
        (('schedule={kind="cosine",lr_peak=0.1,lr_final=0.01}',), 15),
        (
            (
                "epochs=10",
                'schedule={kind="piecewise",knots=[[0,0.1],[6,0.2],[9,0.1]],per="epoch"}',
            ),
            16,
        ),
    ],
)
def test_a_steered_test_is_as_long_as_the_recipes_own_warm_up(make_recipe, changes, steps):
    table = steered(make_recipe(*changes), images=96)
    assert (table.total_steps, table.steps_per_epoch) == (steps, 3)
    assert table.lr(0) == table.helm.lr == steer.FIRST


def test_the_rate_found_is_the_mean_of_the_last_fifth_by_logarithm():
    assert read([1.0] * 8 + [1e-2, 1e-4]) == pytest.approx(1e-3)
    assert read([1.0, 1e-2]) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("lr", "losses", "update", "said"),
    [
        (0.1, [2.5] * 10 + [5.0] * 10, SHARE, ""),
        (0.1, [2.5] * 10 + [11.0] * 20, SHARE, "the loss was lost at 0.1"),
        (0.1, [2.5] * 19 + [math.nan], SHARE, "the loss was lost at 0.1"),
        (0.1, [2.5] * 20, 0.0, "changed by 0 % a step at 0.1"),
        (0.1, [2.5] * 20, 5 * SHARE, "changed by 10 % a step at 0.1"),
        (14000.0, [1e-6] * 20, SHARE, "it ran away to 1.4e+04, where the loss was 1e-06"),
    ],
)
def test_a_steered_test_that_went_astray_says_how(lr, losses, update, said):
    why = astray([lr] * len(losses), losses, [update] * len(losses))
    assert said in why and bool(why) == bool(said)
