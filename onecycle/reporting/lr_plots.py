"""Figures of learning-rate range tests, drawn from the rows and findings that a folder keeps."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onecycle.reporting.plots import JUDGED, RATE, TRAIN, blank

Rows = list[dict[str, float]]
COLOURS = (JUDGED, RATE, "#CC79A7", "#E69F00", "#56B4E9")  # of the rules


def range_test(rows: Rows, steered: Rows, found: dict[str, Any]) -> Figure:
    """A range test of one or several seeds: the loss and the rates that were steered to.

    With a rate an epoch the accuracy. `rows` are those of `lr_find.csv`, `steered` those of
    `lr_steered.csv`, `found` is what `lr_find.json` holds.
    """
    figure = blank(11.4 if steered else 7.4, 4.4)
    axes, *more = figure.subplots(1, 2 if steered else 1, squeeze=False)[0]
    per_epoch = found["sweep"]["per_epoch"]
    draw = _accuracies if per_epoch else _losses
    for seed in found["seeds"]:
        draw(axes, [row for row in rows if row["seed"] == seed], first=seed == found["seeds"][0])
    if not per_epoch:
        _limit(axes, rows)
    _suggestions(axes, found)
    axes.set_xlabel("learning rate")
    if not found["sweep"]["linear"]:
        axes.set_xscale("log")
    for right in more:
        _steered(right, steered, found)
    for each in (axes, *more):
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
        each.legend(frameon=False, fontsize=9)
    return figure


def _steered(axes: Axes, rows: Rows, found: dict[str, Any]) -> None:
    """The rate at each step of the steered part, and what was taken of it."""
    for seed in found["seeds"]:
        lrs = [row["lr"] for row in rows if row["seed"] == seed]
        name = "rate" if seed == found["seeds"][0] else None
        axes.plot(range(1, len(lrs) + 1), lrs, color=TRAIN, linewidth=1.8, label=name)
    if found["lr_max"]:
        name = f"lr_max: {found['lr_max']:.2g}"
        axes.axhline(found["lr_max"], color=COLOURS[0], linewidth=2.2, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step of the steered part")
    axes.set_ylabel("learning rate")


def _losses(axes: Axes, rows: Rows, first: bool) -> None:
    part = "val_loss" if "val_loss" in rows[0] else "loss"
    lrs, losses = [row["lr"] for row in rows], [row[part] for row in rows]
    name = "validation loss" if part == "val_loss" else "loss of the batch"
    axes.plot(lrs, losses, color=TRAIN, alpha=0.3, linewidth=1, label=name if first else None)
    smoothed = [row["smoothed"] for row in rows]
    axes.plot(lrs, smoothed, color=TRAIN, linewidth=1.8, label="smoothed" if first else None)
    axes.set_ylabel("cross-entropy (nats)")


def _limit(axes: Axes, rows: Rows) -> None:
    """Show the descents large, and only the beginning of what follows."""
    smoothed = [row["smoothed"] for row in rows if math.isfinite(row["smoothed"])]
    start = max((row["smoothed"] for row in rows if row["lr"] == rows[0]["lr"]), default=0.0)
    if smoothed and start > min(smoothed):
        fall = start - min(smoothed)
        axes.set_ylim(min(smoothed) - 0.2 * fall, start + 0.3 * fall)


def _accuracies(axes: Axes, rows: Rows, first: bool) -> None:
    lrs = [row["lr"] for row in rows]
    for key, name, colour in (
        ("accuracy", "training, augmented", TRAIN),
        ("val_accuracy", "validation", JUDGED),
    ):
        if key in rows[0]:
            values = [100 * row[key] for row in rows]
            axes.plot(lrs, values, "o-", color=colour, label=name if first else None)
    axes.set_ylabel("top-1 accuracy of the epoch (%)")


def _suggestions(axes: Axes, found: dict[str, Any]) -> None:
    """A line at each rule's rate, over a band from the lowest to the highest of the seeds."""
    for each, colour in zip(found["suggestions"], COLOURS, strict=False):
        if each["refused"]:
            continue
        chosen = found["lr_max"] and each["rule"] == found["rule"]
        name = f"{each['rule']}: {each['lr']:.2g}{' (taken)' if chosen else ''}"
        axes.axvline(
            each["lr"],
            color=colour,
            linewidth=2.2 if chosen else 1.2,
            linestyle="-" if chosen else "--",
            label=name,
        )
        if len(each["lrs"]) > 1:
            axes.axvspan(min(each["lrs"]), max(each["lrs"]), color=colour, alpha=0.12, linewidth=0)
    for i, lr in enumerate(lr for lr in found["diverged_at"] if lr):
        axes.axvline(lr, color="black", linestyle=":", label=None if i else "diverged")
