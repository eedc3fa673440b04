"""Fill the tables of README.md and docs/ from what is published, and draw accuracy against seconds.

The recipes' table and picture are made from the summaries in results/ (`onecycle results RUN
--publish results`), those of the time to an accuracy from results/to_accuracy/: one file for ours
and one for each peer, for each machine. The table of own pictures is made from
results/own/, where NAME-lr-auto.json stands beside NAME.json.

usage: python scripts/readme.py
"""

from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from onecycle import files
from onecycle.evaluation.compare import spread
from onecycle.reporting import plots, tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "pictures"
OWN = ROOT / "docs" / "own-pictures.md"
Points = dict[str, list[tuple[float, float]]]  # by what ran: seconds and accuracy of each run
SHOWN = 4  # points of accuracy below the best that the picture of recipes reaches down to
PLAIN = "test accuracy, one view (%)"


def published() -> list[dict[str, Any]]:
    """The summaries of runs in results/."""
    return [files.read_json(path) for path in sorted((ROOT / "results").glob("*.json"))]


def contenders() -> dict[str, list[dict[str, Any]]]:
    """What stands in results/to_accuracy/, by machine, the slowest first."""
    found = [files.read_json(path) for path in (ROOT / "results" / "to_accuracy").glob("*.json")]
    machines: dict[str, list[dict[str, Any]]] = {}
    for each in sorted(found, key=lambda each: (tables.machine(each), -_seconds(each))):
        machines.setdefault(tables.machine(each), []).append(each)
    return machines


def _timed(contender: dict[str, Any]) -> list[dict[str, Any]]:
    """Its runs that took turns with the others'; those at other times are not comparable."""
    return [run for run in contender["runs"] if "seconds" in run]


def _seconds(contender: dict[str, Any]) -> float:
    return spread([run["seconds"] for run in _timed(contender)]).mean


def to_accuracy(machines: dict[str, list[dict[str, Any]]]) -> str:
    """A table for each machine: accuracies and seconds, and the share of the slowest one's."""
    return "\n\n".join(
        f"{machine}:\n\n{_to_accuracy(found)}" for machine, found in machines.items()
    )


def _to_accuracy(found: list[dict[str, Any]]) -> str:
    lines = [
        "| | epochs | runs | test %, six views | in turn | seconds | of the first's |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        reached = spread([run["test_accuracy"] for run in each["runs"]])
        cells = [
            each["name"],
            f"{each['epochs']:g}",
            str(reached.n),
            tables.percent(reached),
            str(len(_timed(each))),
            f"{_seconds(each):,.0f}",
            f"{_seconds(each) / _seconds(found[0]):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(panels: dict[str, Points], across: str, up: str) -> Figure:
    """Accuracy (a fraction) against seconds: a point for each run, by the name of what ran.

    A panel for each machine, because the seconds of two are not comparable.
    """
    figure = plots.blank(4 + 3 * len(panels), 3.8)
    names = sorted({name for points in panels.values() for name in points})
    colours = dict(zip(names, cycle(plots.PALETTE), strict=False))
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (machine, points) in zip(row, panels.items(), strict=True):
        for name, runs in points.items():
            seconds, reached = zip(*runs, strict=True)
            percent = [100 * each for each in reached]
            axes.plot(seconds, percent, "o", color=colours[name], label=name, alpha=0.8)
        axes.set_title(machine, fontsize="medium")
        axes.set_xlabel(across)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel(up)
    drawn = {line.get_label(): line for axes in row for line in axes.lines}
    # Beside the axes: inside, its points would be taken for runs.
    row[-1].legend(
        [drawn[name] for name in names],
        names,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1, 1),
    )
    return figure


def recipes(results: list[dict[str, Any]]) -> Figure:
    """What each recipe reached at its end, in how many seconds, without test-time augmentation."""
    panels: dict[str, Points] = {}
    for run in sorted(results, key=lambda run: (tables.machine(run), run["recipe"])):
        points = panels.setdefault(tables.machine(run), {})
        points.setdefault(run["recipe"], []).append((run["seconds"], run["test_accuracy"]))
    figure = picture(panels, "seconds, evaluations included", PLAIN)
    best = 100 * max(run["test_accuracy"] for run in results)
    for axes, points in zip(figure.axes, panels.values(), strict=True):
        axes.set_ylim(best - SHOWN, best + SHOWN / 8)
        for name, runs in points.items():
            for seconds, reached in runs:
                if 100 * reached < best - SHOWN:
                    below = f"{name}: {100 * reached:.1f}"
                    axes.annotate(below, (seconds, best - SHOWN), ha="center", va="bottom")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
    return figure


def beside_peers(machines: dict[str, list[dict[str, Any]]]) -> Figure:
    """What each reached with six views, in how many seconds, where they took turns."""
    panels = {
        machine: {
            each["name"]: [(run["seconds"], run["test_accuracy"]) for run in _timed(each)]
            for each in found
        }
        for machine, found in machines.items()
    }
    figure = picture(panels, "seconds", "test accuracy, six views (%)")
    figure.axes[0].set_xlim(left=0)
    return figure


def own() -> str:
    """The table of results/own/."""
    lines = [
        "| pictures | for training | epochs | test % | train % | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "results" / "own").glob("*.json")):
        run = files.read_json(path)
        cells = [
            path.stem,
            f"{run['train_images']:,}",
            f"{run['epochs']:.0f}",
            f"{100 * run['test_accuracy']:.2f}",
            f"{100 * run['train_accuracy']:.2f}",
            f"{run['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """`page`, the README, with both tables as they are now."""
    reported = files.read_json(ROOT / "docs" / "reported.json")
    page = tables.fill(page, "results", tables.markdown(published(), reported))
    return tables.fill(page, "to accuracy", to_accuracy(contenders()))


def main() -> None:
    """Write the tables and the pictures."""
    files.write_bytes(README, filled(README.read_text()).encode())
    files.write_bytes(OWN, tables.fill(OWN.read_text(), "own", own()).encode())
    plots.save(recipes(published()), PICTURES / "recipes.png")
    plots.save(beside_peers(contenders()), PICTURES / "to-accuracy.png")


if __name__ == "__main__":
    main()
