"""The rate as a function of the step: torch's OneCycleLR, without its state or its annihilation."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from onecycle.recipe import book
from onecycle.training.schedule import timetable

BATCH = 10
LENGTHS = [(24, 98, 5.0), (24, 98, 4.992), (3, 7, 2.0), (10, 4, 3.3), (5, 6, 5.0), (30, 1, 9.0)]


def make(epochs, steps, peak, *changes, images=None, rates=(0.01, 0.5, 0.002)):
    """The timetable of `epochs` epochs of `steps` batches."""
    start, top, final = rates
    recipe = book.change(
        book.find("davidnet"),
        [
            f"epochs={epochs}",
            f"batch_size={BATCH}",
            f"schedule.peak_epoch={peak}",
            f"schedule.lr_start={start}",
            f"schedule.lr_peak={top}",
            f"schedule.lr_final={final}",
            *changes,
        ],
    )
    return timetable(recipe, images or steps * BATCH)


def all_rates(table):
    return [table.lr(step) for step in range(table.total_steps)]


def torch_cycle(total_steps, pct_start, anneal, rates, momenta):
    """(rate, momentum) of each step, by torch's own scheduler on a dummy optimizer."""
    start, top, final = rates
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(
        optimizer,
        max_lr=top,
        total_steps=total_steps,
        pct_start=pct_start,
        anneal_strategy=anneal,
        div_factor=top / start,
        final_div_factor=start / final,
        base_momentum=momenta[0],
        max_momentum=momenta[1],
    )
    seen = []
    for step in range(total_steps):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        optimizer.step()
        if step < total_steps - 1:
            scheduler.step()
    return seen


@pytest.mark.parametrize(("epochs", "steps", "peak"), LENGTHS)
@pytest.mark.parametrize(("shape", "anneal"), [("linear", "linear"), ("cosine", "cos")])
@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_rate_and_momentum_are_torchs_to_1e_12(epochs, steps, peak, shape, anneal, per):
    rates = (0.01, 0.5, 0.002)
    table = make(
        epochs,
        steps,
        peak,
        f"schedule.shape={shape}",
        f"schedule.per={per}",
        "schedule.momentum_at_peak=0.85",
        rates=rates,
    )
    points = epochs * (steps if per == "batch" else 1)
    theirs = torch_cycle(points, peak / epochs, anneal, rates, (0.85, 0.95))
    assert table.total_steps == epochs * steps
    for step in range(table.total_steps):
        lr, momentum = theirs[step if per == "batch" else step // steps]
        assert table.lr(step) == pytest.approx(lr, rel=0, abs=1e-12)
        assert table.momentum(step, 0.95) == pytest.approx(momentum, rel=0, abs=1e-12)


def test_momentum_is_constant_unless_it_is_to_cycle():
    table = make(3, 4, 1.0)
    assert {table.momentum(step, 0.9) for step in range(12)} == {0.9}


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
