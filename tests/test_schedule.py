"""The rate as a function of the step: closed forms, exact ends, no annihilation."""

import math

import numpy as np
import pytest
from timetables import BATCH, all_rates, make

from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.training.schedule import timetable


def test_triangles_have_the_heights_of_the_closed_form():
    for kind, second in (("triangular", 0.5), ("triangular2", 0.01 + (0.5 - 0.01) / 2)):
        table = make(4, 10, 1, f"schedule.kind={kind}", "schedule.cycle_epochs=2")
        seen = [table.lr(step) for step in (0, 5, 10, 20, 30, 39)]
        last = 0.01 + (second - 0.01) / 10
        assert seen == pytest.approx([0.01, 0.255, 0.5, 0.01, second, last], rel=1e-12)
        assert (table.lr(0), table.lr(10), table.lr(20)) == (0.01, 0.5, 0.01)


def test_cycles_need_room_for_a_rise_and_a_fall():
    changes = ("schedule.kind=triangular", "schedule.cycle_epochs=%g")
    assert all_rates(make(3, 4, 1, changes[0], changes[1] % 0.5))[:3] == [0.01, 0.5, 0.01]
    with pytest.raises(RecipeError, match=r"cycle_epochs 0.4 .* at least 0.5"):
        make(3, 4, 1, changes[0], changes[1] % 0.4)


def test_a_constant_rate_is_constant():
    assert set(all_rates(make(3, 4, 1, "schedule.kind=constant"))) == {0.5}


def test_knots_are_joined_by_lines_and_held_outside():
    knots = [(1, 0.1), (2.5, 0.4), (3, 0.05)]
    table = make(5, 10, 1, "schedule.kind=piecewise", f"schedule.knots={[list(k) for k in knots]}")
    at = [epoch * 10 - 1 for epoch, _ in knots]
    expected = np.interp(range(50), at, [lr for _, lr in knots])
    np.testing.assert_allclose(all_rates(table), expected, rtol=1e-12)
    assert [table.lr(step) for step in (0, 9, 24, 29, 49)] == [0.1, 0.1, 0.4, 0.05, 0.05]
    assert table.momentum(24, 0.9) == 0.9


@pytest.mark.parametrize("shape", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_one_cycle_is_three_knots(shape, per):
    changes = [f"schedule.shape={shape}", f"schedule.per={per}"]
    knots = "[[0, 0.01], [2.5, 0.5], [7, 0.002]]"
    cycle = make(7, 9, 2.5, *changes)
    pieces = make(7, 9, 2.5, "schedule.kind=piecewise", f"schedule.knots={knots}", *changes)
    assert all_rates(pieces) == all_rates(cycle)


def test_exponential_pieces_multiply_the_rate_by_the_same_factor_each_step():
    changes = ["schedule.shape=exponential", "schedule.kind=piecewise"]
    table = make(2, 10, 1, *changes, "schedule.knots=[[0, 1e-5], [2, 10]]")
    rates = np.array(all_rates(table))
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10 ** (6 / 19), rtol=1e-12)
    assert (rates[0], rates[-1]) == (1e-5, 10)


RATES = [
    "schedule.peak_epoch=2",
    "schedule.lr_start=0.01",
    "schedule.lr_peak=0.5",
    "schedule.lr_final=0.002",
]
KINDS = [
    ["schedule.shape=cosine"],
    ["schedule.three_phase=true"],
    ["schedule.kind=triangular2", "schedule.cycle_epochs=2"],
    ["schedule.kind=piecewise", "schedule.knots=[[0, 0.1], [2, 0.5], [4, 0.002]]"],
    ["schedule.kind=cosine"],
    ["schedule.kind=constant"],
]


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: changes[0].partition("=")[2])
def test_another_length_keeps_the_course(changes):
    """Four times as long, the rate after the same fraction of the run is the same."""
    short = make(4, 50, 2, *changes)
    recipe = book.change(book.find("davidnet"), [f"batch_size={BATCH}", "epochs=4", *RATES])
    stretched = book.change(book.change(recipe, changes), [], epochs=16)
    long = timetable(stretched, 50 * BATCH)
    assert long.total_steps == 4 * short.total_steps
    for step in range(200):
        assert long.lr(4 * step + 3) == pytest.approx(short.lr(step), abs=0.01)


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: changes[0].partition("=")[2])
def test_another_peak_scales_every_rate(changes):
    recipe = book.change(book.find("davidnet"), ["epochs=4", *RATES, *changes])
    higher = book.change(recipe, [], lr=0.25)
    before = np.array(all_rates(timetable(recipe, 512 * 50)))
    np.testing.assert_allclose(all_rates(timetable(higher, 512 * 50)), before / 2, rtol=1e-12)
    assert book.change(recipe, [], lr=0.5) == recipe


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: changes[0].partition("=")[2])
def test_a_step_past_the_end_raises_whatever_the_kind(changes):
    table = make(4, 5, 2, *changes)
    assert all(math.isfinite(rate) for rate in all_rates(table))
    with pytest.raises(ValueError, match="step 20 "):
        table.lr(20)


def test_momentum_is_constant_unless_it_is_to_cycle():
    table = make(3, 4, 1.0)
    assert {table.momentum(step, 0.9) for step in range(12)} == {0.9}


@pytest.mark.parametrize("base", [0.0, 0.9])
def test_momentum_goes_in_a_line_where_the_rate_goes_by_factors(base):
    cycle = ["schedule.momentum_at_peak=0.8"]
    line, factors = (
        make(3, 4, 1.0, *cycle, f"schedule.shape={s}") for s in ("linear", "exponential")
    )
    assert [factors.momentum(step, base) for step in range(12)] == [
        line.momentum(step, base) for step in range(12)
    ]


def test_a_momentum_of_none_at_the_peak_is_refused():
    """torch's SGD leaves a buffer as it was at a step whose momentum is 0."""
    with pytest.raises(RecipeError, match="momentum_at_peak"):
        make(3, 4, 1.0, "schedule.momentum_at_peak=0")


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("rates", [(4e-5, 4e-3, 4e-5), (0.03, 0.3, 0.003), (1e-3, 0.0493, 4.93e-6)])
@pytest.mark.parametrize(("epochs", "steps", "peak"), [(24, 98, 5), (3, 7, 1), (2.5, 4, 0.5)])
def test_start_peak_and_final_rate_are_exact(shape, rates, epochs, steps, peak):
    table = make(epochs, steps, peak, f"schedule.shape={shape}", rates=rates)
    seen = all_rates(table)
    assert (seen[0], seen[int(peak * steps) - 1], seen[-1]) == rates
    assert max(seen) == rates[1]


@pytest.mark.parametrize("epochs", [3, 2.5, 7 / 3, 2.01])
def test_last_step_has_the_final_rate_when_it_moves_per_epoch(epochs):
    assert all_rates(make(epochs, 10, 1, "schedule.per=epoch"))[-1] == 0.002


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("per", ["batch", "epoch"])
@pytest.mark.parametrize("low", [4e-5, 0.05, 0.00493])
def test_no_annihilation(shape, per, low):
    table = make(
        24, 5, 5, f"schedule.shape={shape}", f"schedule.per={per}", rates=(low, 10 * low, low)
    )
    assert min(all_rates(table)) == low


def test_reference_001_has_the_rates_of_its_printed_log():
    peak = 0.04006
    table = make(24, 98, 0.208 * 24, "schedule.per=epoch", rates=(peak / 10, peak, peak / 10))
    by_epoch = [{table.lr(98 * epoch + step) for step in range(98)} for epoch in range(24)]
    assert all(len(rates) == 1 for rates in by_epoch)
    rates = [round(rates.pop(), 6) for rates in by_epoch]
    assert (rates[0], rates[5], rates[23]) == (0.004006, 0.038148, 0.004006)
    assert max(rates) < peak


@pytest.mark.parametrize("step", [-1, 12, 13])
def test_step_outside_the_run_raises(step):
    table = make(3, 4, 1)
    for ask in (table.lr, lambda step: table.momentum(step, 0.9)):
        ask(0)
        ask(11)
    with pytest.raises(ValueError, match=f"step {step} "):
        table.lr(step)
    cycling = make(3, 4, 1, "schedule.momentum_at_peak=0.85")
    with pytest.raises(ValueError, match=f"step {step} "):
        cycling.momentum(step, 0.9)


@pytest.mark.parametrize(
    ("images", "epochs", "drop_last", "per_epoch", "total"),
    [
        (40, 3, "false", 4, 12),
        (41, 3, "false", 5, 15),
        (41, 3, "true", 4, 12),
        (49, 3, "true", 4, 12),
        (40, 2.5, "false", 4, 10),
        (41, 2.2, "false", 5, 11),
        (41, 0.75, "true", 4, 3),
        (7, 3, "true", 1, 3),
        (40, 0.01, "false", 4, 1),
    ],
)
def test_steps_per_epoch_and_in_all(images, epochs, drop_last, per_epoch, total):
    table = make(epochs, 0, min(epochs, 1), f"drop_last={drop_last}", images=images)
    assert (table.steps_per_epoch, table.total_steps) == (per_epoch, total)
    assert table.epoch(per_epoch - 1) == 0
    assert table.epoch(per_epoch) == 1


@pytest.mark.parametrize(
    ("epochs", "steps", "peak", "per"),
    [
        (1, 1, 0.2, "batch"),
        (1, 1, 1, "batch"),
        (0.05, 5, 0.01, "batch"),
        (0.5, 4, 0.2, "epoch"),
        (1, 4, 1, "epoch"),
        (3, 4, 0.1, "batch"),
        (3, 4, 0.1, "epoch"),
        (2.6, 1, 2.6, "batch"),
    ],
)
def test_every_step_has_a_rate_however_short_the_run_or_early_the_peak(epochs, steps, peak, per):
    seen = all_rates(make(epochs, steps, peak, f"schedule.per={per}"))
    assert all(0.002 <= rate <= 0.5 for rate in seen)
