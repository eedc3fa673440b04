"""The rate and the momentum at every step are those of torch's schedulers."""

import pytest
import torch
from timetables import make
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR

LENGTHS = [(24, 98, 5.0), (24, 98, 4.992), (3, 7, 2.0), (10, 4, 3.3), (5, 6, 5.0), (30, 1, 9.0)]


def seen_by_torch(steps, make_scheduler):
    """(rate, momentum) of each step, by torch's own scheduler on a dummy optimizer."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5, momentum=0.95)
    scheduler = make_scheduler(optimizer)
    seen = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return seen


def torch_cycle(total_steps, pct_start, anneal, rates, momenta, three_phase=False):
    start, top, final = rates
    return seen_by_torch(
        total_steps,
        lambda optimizer: OneCycleLR(
            optimizer,
            max_lr=top,
            total_steps=total_steps,
            pct_start=pct_start,
            anneal_strategy=anneal,
            div_factor=top / start,
            final_div_factor=start / final,
            base_momentum=momenta[0],
            max_momentum=momenta[1],
            three_phase=three_phase,
        ),
    )


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
    assert_same(table, theirs, 1 if per == "batch" else steps)


def assert_same(table, theirs, steps_per_point=1):
    """`table` has torch's rates and momenta, each for `steps_per_point` steps."""
    for step in range(table.total_steps):
        lr, momentum = theirs[step // steps_per_point]
        assert table.lr(step) == pytest.approx(lr, rel=0, abs=1e-12)
        assert table.momentum(step, 0.95) == pytest.approx(momentum, rel=0, abs=1e-12)


@pytest.mark.parametrize(("epochs", "steps", "peak"), [(24, 98, 5.0), (10, 4, 3.3), (30, 1, 9.0)])
@pytest.mark.parametrize(("shape", "anneal"), [("linear", "linear"), ("cosine", "cos")])
@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_three_phases_are_torchs_to_1e_12(epochs, steps, peak, shape, anneal, per):
    table = make(
        epochs,
        steps,
        peak,
        "schedule.three_phase=true",
        f"schedule.shape={shape}",
        f"schedule.per={per}",
        "schedule.momentum_at_peak=0.85",
    )
    points = epochs * (steps if per == "batch" else 1)
    rates = (0.01, 0.5, 0.002)
    theirs = torch_cycle(points, peak / epochs, anneal, rates, (0.85, 0.95), three_phase=True)
    assert_same(table, theirs, 1 if per == "batch" else steps)
    assert (table.lr(0), table.lr(table.total_steps - 1)) == (0.01, 0.002)


@pytest.mark.parametrize("kind", ["triangular", "triangular2"])
@pytest.mark.parametrize("cycle", [2, 4, 5, 10])
@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_triangular_cycles_are_torchs_to_1e_12(kind, cycle, per):
    table = make(
        10,
        7,
        5,
        f"schedule.kind={kind}",
        f"schedule.cycle_epochs={cycle}",
        f"schedule.per={per}",
        "schedule.momentum_at_peak=0.85",
    )
    half = cycle / 2 * (7 if per == "batch" else 1)
    theirs = seen_by_torch(
        70,
        lambda optimizer: CyclicLR(
            optimizer, 0.01, 0.5, half, mode=kind, base_momentum=0.85, max_momentum=0.95
        ),
    )
    assert_same(table, theirs, 1 if per == "batch" else 7)


@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_cosine_is_torchs_to_1e_12_and_ends_at_its_final_rate(per):
    table = make(5, 8, 1, "schedule.kind=cosine", f"schedule.per={per}")
    points = 40 if per == "batch" else 5
    theirs = seen_by_torch(
        points, lambda optimizer: CosineAnnealingLR(optimizer, points - 1, eta_min=0.002)
    )
    assert_same(table, theirs, 1 if per == "batch" else 8)
    assert (table.lr(0), table.lr(39)) == (0.5, 0.002)
