"""Resuming at every step: `pytest tests/acceptance/test_resume_long.py`, some minutes."""

import pytest
from long_run import STEPS, Long, copied, digest
from test_resume_catalogue import go_on_from, make_job

from onecycle.recipe import book

__all__ = ["make_job"]
EPOCHS, BATCHES = 3, 5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", book.names())
def test_a_recipe_broken_off_after_any_step_goes_on_to_the_bit(
    make_job, record_property, name, precision
):
    stops = range(1, EPOCHS * BATCHES)
    go_on_from(stops, make_job(name, EPOCHS, BATCHES, precision))
    record_property("promise", f"bitwise resume: {name}, {precision}")
    record_property("steps stopped after", len(stops))


def test_from_each_of_59_steps_to_the_end(tiny, make_recipe, machine, record_property):
    changes = ["batch_size=5", "ghost_batch=2", "model.dropout=0.1"]
    long = Long(tiny, make_recipe(*changes, "schedule.momentum_at_peak=0.8"), machine)
    state = long.fresh()
    tensors = [copied(state.tensors()) for _ in long.fit(state)]
    ends = [long.go_on(long.loaded(tensors[step - 1], step)) for step in range(1, STEPS)]
    assert ends == [digest(state)] * 59
    record_property("promise", "bitwise resume: 60 steps over 3 epochs")
    record_property("steps stopped after", len(ends))
