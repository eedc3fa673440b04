"""Figures drawn from a run folder's tables. They are returned; `save` writes one."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from onecycle import files

# Okabe and Ito's colours: told apart by colour-blind readers too.
TRAIN, JUDGED, RATE = "#0072B2", "#D55E00", "#009E73"
PALETTE = (TRAIN, JUDGED, RATE, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")  # once the colours are used up
QUIET = "#BBBBBB"
LONGEST_NAME = 28  # characters of a name in a figure
DPI = 130  # pixels an inch of what is saved


class _Shown(Figure):
    """A figure that a notebook shows, though pyplot doesn't know it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def blank(width: float, height: float) -> Figure:
    """An empty figure of `width` by `height` inches."""
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str, longest: int = LONGEST_NAME) -> str:
    """`text` as matplotlib shows it letter by letter, shortened in the middle if it is long."""
    if len(text) > longest:
        kept = longest - 1
        text = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return text.replace("$", r"\$")


def curves(metrics: list[dict[str, float]], growth: Sequence[tuple[float, int]] = ()) -> Figure:
    """Loss, accuracy and learning rate by epoch, from the rows of `metrics.csv`.

    `growth` says from which epochs on the training images have how many pixels a side: what was
    judged at the full size meanwhile leaps there.
    """
    part = "val" if "val_loss" in metrics[0] else "test"
    label = {"val": "validation", "test": "test"}[part]
    epochs = [row["epoch"] for row in metrics]
    figure = blank(11, 3.4)
    loss, accuracy, rate = figure.subplots(1, 3)
    marker = "o" if len(epochs) == 1 else ""

    def draw(axes: Axes, key: str, colour: str, name: str, scale: float = 1.0) -> None:
        values = [row[key] * scale for row in metrics]
        axes.plot(epochs, values, color=colour, label=name, marker=marker, linewidth=1.8)

    draw(loss, "train_loss", TRAIN, "training, augmented")
    draw(loss, f"{part}_loss", JUDGED, label)
    loss.set_ylabel("cross-entropy (nats)")
    draw(accuracy, "train_accuracy", TRAIN, "training, augmented", 100)
    draw(accuracy, f"{part}_accuracy", JUDGED, label, 100)
    accuracy.set_ylabel("top-1 accuracy (%)")
    draw(rate, "lr", RATE, "last step of the epoch")
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    rate.set_ylim(bottom=0)
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    for at, side in growth:
        if epochs[0] < at < epochs[-1]:
            for axes in (loss, accuracy):
                axes.axvline(at, color=QUIET, linewidth=1, linestyle=":", zorder=0)
            accuracy.annotate(
                f"{side} px",
                (at, 0.02),
                xytext=(3, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=8,
                color="#666666",
            )
    return figure


def overlay(named: list[tuple[str, list[list[dict[str, float]]]]]) -> Figure:
    """Judged accuracy and training loss by epoch of several runs, a colour and dash for each name.

    `named` holds a name and the `metrics.csv` rows of its runs: one, or several seeds.
    """
    figure = blank(11, 4)
    accuracy, loss = figure.subplots(1, 2)
    firsts: list[Line2D] = []  # a line of each name
    for i, (_, runs) in enumerate(named):
        dashes, colour = divmod(i, len(PALETTE))
        style: dict[str, Any] = {
            "color": PALETTE[colour],
            "linestyle": DASHES[dashes % len(DASHES)],
        }
        for j, rows in enumerate(runs):
            part = "val" if "val_accuracy" in rows[0] else "test"
            epochs = [row["epoch"] for row in rows]
            style |= {"linewidth": 1.6, "marker": "o" if len(rows) == 1 else ""}
            line = accuracy.plot(epochs, [100 * r[f"{part}_accuracy"] for r in rows], **style)
            firsts += line if j == 0 else []
            loss.plot(epochs, [row["train_loss"] for row in rows], **style)
    accuracy.set_ylabel("top-1 accuracy (%), test or validation")
    loss.set_ylabel("training cross-entropy (nats), augmented")
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    # As lists, because a line's own label must not begin with an underscore.
    names = [literal(name, 60) for name, _ in named]
    # Beside the axes, where no line runs through it.
    loss.legend(firsts, names, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def png(figure: Figure) -> bytes:
    """`figure` as PNG."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; tables and listings have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as PNG."""
    files.write_bytes(path, png(figure))
