"""Pictures of range tests show the rows and the findings that a folder keeps."""

import numpy as np
import pytest

from onecycle.reporting import lr_plots


def rows_of(seeds=(0, 1), val=False, count=40):
    made = []
    for seed in seeds:
        for i, lr in enumerate(np.geomspace(1e-5, 1, count).tolist()):
            loss = 3.0 - i / 20 + 0.1 * seed if i < 30 else 30.0
            row = {"seed": seed, "lr": lr, "loss": loss, "accuracy": 0.1 + i / 100}
            extra = {"val_loss": loss + 0.2, "val_accuracy": 0.2} if val else {}
            made.append({**row, **extra, "smoothed": loss + 0.05})
    return made


def found_of(seeds=(0, 1), per_epoch=False, linear=False):
    return {
        "rule": "steered",
        "lr_max": 1e-2,
        "seeds": list(seeds),
        "sweep": {"per_epoch": per_epoch, "linear": linear},
        "diverged_at": [0.5, None][: len(seeds)],
        "suggestions": [
            {"rule": "steered", "lr": 1e-2, "lrs": [5e-3, 2e-2][: len(seeds)], "refused": ""},
            {"rule": "valley", "lr": 1e-3, "lrs": [1e-3, 1e-3][: len(seeds)], "refused": ""},
            {"rule": "slide", "lr": None, "lrs": [], "refused": "at the low edge"},
        ],
    }


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_losses_raw_and_smoothed_over_the_logarithm_of_the_rate():
    rows = rows_of()
    figure = lr_plots.range_test(rows, [], found_of())
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "learning rate")
    assert axes.get_ylabel() == "cross-entropy (nats)"
    drawn = [list(line.get_ydata()) for line in axes.lines]
    for seed in (0, 1):
        mine = [row for row in rows if row["seed"] == seed]
        assert [row["loss"] for row in mine] in drawn
        assert [row["smoothed"] for row in mine] in drawn
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:2] == ["loss of the batch", "smoothed"] and len(names) == len(set(names))
    assert axes.get_ylim()[1] < 10, "what follows the divergence doesn't flatten the descent"


def test_suggestions_are_marked_with_their_spread_and_the_taken_one_is_named():
    figure = lr_plots.range_test(rows_of(), [], found_of())
    drawn = lines(figure)
    assert drawn["steered: 0.01 (taken)"].get_xdata()[0] == 1e-2
    assert drawn["valley: 0.001"].get_xdata()[0] == 1e-3
    assert not any("slide" in name for name in drawn)
    bands = [patch.get_x() for patch in figure.axes[0].patches]
    widths = [patch.get_x() + patch.get_width() for patch in figure.axes[0].patches]
    assert bands[0] == 5e-3 and widths[0] == pytest.approx(2e-2)
    assert drawn["diverged"].get_xdata()[0] == 0.5
    single = lr_plots.range_test(rows_of((0,)), [], found_of((0,)))
    assert not single.axes[0].patches


def test_validation_losses_are_named():
    rows = rows_of(val=True)
    drawn = lines(lr_plots.range_test(rows, [], found_of()))
    mine = [row["val_loss"] for row in rows if row["seed"] == 0]
    assert list(drawn["validation loss"].get_ydata()) == mine


@pytest.mark.parametrize("val", [False, True])
def test_accuracies_by_rate_where_each_rate_had_an_epoch(val):
    found = found_of((0,), per_epoch=True, linear=True)
    rows = rows_of((0,), val, count=10)
    axes = lr_plots.range_test(rows, [], found).axes[0]
    assert (axes.get_xscale(), axes.get_ylabel()) == ("linear", "top-1 accuracy of the epoch (%)")
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    expected = [100 * row["accuracy"] for row in rows]
    assert drawn["training, augmented"] == pytest.approx(expected)
    assert ("validation" in drawn) is val


@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_test_that_found_nothing_and_blew_up_can_be_drawn(tmp_path, good):
    rows = rows_of((0,), count=3)
    for row in rows[good:]:
        row["loss"] = row["smoothed"] = float("nan")
    found = {**found_of((0,)), "suggestions": []}
    figure = lr_plots.range_test(rows, [], found)
    figure.savefig(tmp_path / "drawn.png")


def test_the_rates_that_were_steered_to_stand_beside_the_sweep():
    """Of each seed by the step, with the rate that was taken."""
    rates = {0: [1e-5, 1e-3, 4e-3], 1: [1e-5, 2e-3, 9e-3]}
    rows = [
        {"seed": seed, "lr": lr, "loss": 2.0, "accuracy": 0.1, "update": 0.02}
        for seed, lrs in rates.items()
        for lr in lrs
    ]
    _, right = lr_plots.range_test(rows_of(), rows, found_of()).axes
    drawn = [list(line.get_ydata()) for line in right.lines]
    assert drawn == [*rates.values(), [1e-2, 1e-2]]
    assert list(right.lines[0].get_xdata()) == [1, 2, 3] and right.get_yscale() == "log"
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert names == ["rate", "lr_max: 0.01"]


def test_where_no_rate_was_taken_none_is_named_so():
    left, right = lr_plots.range_test(
        rows_of(),
        [{"seed": s, "lr": 1e-3, "loss": 2.0, "accuracy": 0.1, "update": 0.0} for s in (0, 1)],
        {**found_of(), "lr_max": None},
    ).axes
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert "steered: 0.01" in names and not any("taken" in name for name in names)
    assert len(right.lines) == 2
