"""What the tests of schedules share: a timetable of any length, and all of its rates."""

from onecycle.recipe import book
from onecycle.training.schedule import timetable

BATCH = 10


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
