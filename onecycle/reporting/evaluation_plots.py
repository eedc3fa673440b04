"""Figures of an evaluation, drawn from the tree that `evaluation.json` holds."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onecycle.evaluation.metrics import row_shares
from onecycle.reporting.plots import QUIET, TRAIN, blank, literal

MOST_NAMED = 200  # classes up to which each has its name there
MOST_NUMBERED = 20  # classes up to which the cells of a confusion matrix have numbers
DARK = 0.45  # share above which a cell's numbers are white


def confusion(evaluation: dict[str, Any]) -> Figure:
    """The confusion matrix: coloured by share of the actual class, with numbers where they fit."""
    counts = np.array(evaluation["confusion"])
    shares = 100 * row_shares(counts)
    names = [literal(row["class"], 20) for row in evaluation["classes"]]
    numbered = len(names) <= MOST_NUMBERED
    side = max(3, min(len(names), MOST_NAMED) * (0.6 if numbered else 0.115))
    figure = blank(side + 3, side + 2)
    axes = figure.subplots()
    axes.set_facecolor(QUIET)  # seen in the row of a class without images
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the actual class (%)")
    size = 9 if numbered else 6
    shown = range(0, len(names), -(-len(names) // MOST_NAMED))
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90, fontsize=size)
    axes.set_yticks(shown, [names[i] for i in shown], fontsize=size)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    _title(axes, evaluation)
    if numbered:
        for (i, j), count in np.ndenumerate(counts):
            _number(axes, i, j, count, float(shares[i, j]))
    return figure


def reliability(evaluation: dict[str, Any]) -> Figure:
    """Accuracy against confidence in bins, above the number of images in each bin."""
    found = evaluation["calibration"]
    bins = found["reliability"]
    figure = blank(5.2, 5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 100], [0, 100], color=QUIET, linestyle="--", label="perfectly calibrated")
    filled = [row for row in bins if row["images"]]
    confidence = [100 * row["confidence"] for row in filled]
    accuracy, spread = _with_spread(filled, "accuracy")
    upper.errorbar(
        confidence,
        accuracy,
        spread,
        fmt="o-",
        color=TRAIN,
        capsize=2,
        markersize=4,
        label="images in a bin, 95 % interval",
    )
    error = f"expected calibration error {found['ece']:.2%} in {found['bins']} bins"
    if found["temperature"] is not None:
        error += f"\n{found['ece_with_temperature']:.2%} at temperature {found['temperature']:.3f}"
    upper.set_ylabel("accuracy (%)")
    upper.set_ylim(0, 102)
    upper.legend()
    _title(upper, evaluation, f"\n{error}")
    width = 100 / len(bins)
    bars = lower.bar(
        [100 * row["low"] for row in bins],
        [row["images"] for row in bins],
        width,
        align="edge",
        color=TRAIN,
        edgecolor="white",
    )
    lower.bar_label(bars, fmt="{:,.0f}", fontsize=6, padding=1)
    lower.margins(y=0.2)
    lower.set_xlim(0, 100)
    lower.set_ylabel("images")
    lower.set_xlabel("confidence: probability of the predicted class (%)")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def per_class(evaluation: dict[str, Any]) -> Figure:
    """Each class's accuracy (recall) with its interval, the worst at the top."""
    known = [row for row in evaluation["classes"] if row["recall"] is not None]
    absent = [row for row in evaluation["classes"] if row["recall"] is None]
    known.sort(key=lambda row: -row["recall"])
    rows = absent + known
    figure = blank(6.4, 1.4 + 0.22 * len(rows))
    axes = figure.subplots()
    accuracy, spread = _with_spread(known, "recall")
    heights = np.arange(len(absent), len(rows))
    axes.barh(heights, accuracy, color=TRAIN, height=0.7)
    axes.errorbar(accuracy, heights, xerr=spread, fmt="none", color="black", capsize=2, linewidth=1)
    for height in range(len(absent)):
        axes.text(1, height, "n/a: no images", va="center", fontsize=8)
    mean = 100 * evaluation["accuracy"]
    axes.axvline(mean, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [literal(row["class"]) for row in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"accuracy (%) with 95 % interval; dotted: of all classes, {mean:.2f}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _title(axes, evaluation)
    return figure


def _title(axes: Axes, evaluation: dict[str, Any], more: str = "") -> None:
    """What was judged, and with which test-time augmentation."""
    images = f"{evaluation['images']:,} {evaluation['part']} images"
    title = f"{literal(evaluation['data'])}, {images}\n{evaluation['tta_note']}{more}"
    axes.set_title(title, fontsize=10)


def _number(axes: Axes, row: int, column: int, count: int, share: float) -> None:
    """The count in a cell and, below it, the share; nothing where there is nothing."""
    text = f"{count:,}\n{share:.1f}" if count else ""
    text = "n/a" if np.isnan(share) else text
    colour = "white" if share > 100 * DARK else "black"
    axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _with_spread(
    rows: list[dict[str, Any]], key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentages (n,), and how far their intervals reach below and above, (2, n)."""
    middle, low, high = (
        100 * np.array([row[f"{key}{end}"] for row in rows]) for end in ("", "_low", "_high")
    )
    return middle, np.abs([middle - low, high - middle])
