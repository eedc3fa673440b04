"""What each ingredient of a recipe is worth, drawn."""

from typing import Any

from matplotlib.figure import Figure

from onecycle.reporting.plots import TRAIN, blank, literal


def worth(summary: dict[str, Any]) -> Figure:
    """Points of validation accuracy that are lost without each ingredient, with 95 % intervals.

    `summary` is an ablation's; the ingredient that is worth most stands at the top.
    """
    rows = sorted(summary["ingredients"], key=lambda row: row["worth"]["mean"])
    names = [literal(row["ingredient"]) for row in rows]
    points = [100 * row["worth"]["mean"] for row in rows]
    figure = blank(8, 1.4 + 0.45 * len(rows))
    axes = figure.subplots()
    axes.barh(names, points, color=TRAIN, height=0.6)
    for place, row in enumerate(rows):
        if row["worth"]["low"] is not None:
            ends = [100 * row["worth"]["low"], 100 * row["worth"]["high"]]
            axes.plot(ends, [place, place], color="black", linewidth=1.5, marker="|")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("points of validation accuracy lost without it")
    whole = summary["whole"]
    seeds = f"{whole['n']} seeds, 95 % intervals" if whole["n"] > 1 else "one seed"
    axes.set_title(
        f"{literal(summary['recipe'])}, {summary['epochs']:g} epochs, {literal(summary['data'])}: "
        f"{whole['mean']:.2%} whole, {seeds}",
        fontsize=10,
        loc="left",
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure
