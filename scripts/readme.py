"""Fill the tables of README.md and docs/ from what is published, and draw accuracy against seconds.

The recipes' table is made from the summaries in results/ (`onecycle results RUN --publish
results`), that of the time to an accuracy, and its picture, from results/to_accuracy/: one file for
ours and one for each peer, all of the same machine. The table of own pictures is made from
results/own/, where NAME-lr-auto.json stands beside NAME.json.

usage: python scripts/readme.py
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onecycle import files
from onecycle.evaluation.compare import spread
from onecycle.reporting import plots, tables

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "pictures" / "to-accuracy.png"
OWN = ROOT / "docs" / "own-pictures.md"


def published() -> list[dict[str, Any]]:
    """The summaries of runs in results/."""
    return [files.read_json(path) for path in sorted((ROOT / "results").glob("*.json"))]


def contenders() -> list[dict[str, Any]]:
    """What stands in results/to_accuracy/, the slowest first."""
    found = [files.read_json(path) for path in (ROOT / "results" / "to_accuracy").glob("*.json")]
    return sorted(found, key=lambda each: (-_seconds(each), each["name"]))


def _seconds(contender: dict[str, Any]) -> float:
    return spread([run["seconds"] for run in contender["runs"]]).mean


def to_accuracy(found: list[dict[str, Any]]) -> str:
    """The table of `found`: accuracies and seconds, and the share of the slowest one's."""
    lines = [
        "| | epochs | runs | test %, six views | seconds | of the first's |",
        "|---|---|---|---|---|---|",
    ]
    for each in found:
        reached = spread([run["test_accuracy"] for run in each["runs"]])
        cells = [
            each["name"],
            f"{each['epochs']:g}",
            str(reached.n),
            tables.percent(reached),
            f"{_seconds(each):,.0f}",
            f"{_seconds(each) / _seconds(found[0]):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(found: list[dict[str, Any]]) -> Figure:
    """Accuracy against seconds, a point for each run."""
    figure = plots.blank(7, 3.8)
    axes = figure.subplots()
    for each, colour in zip(found, plots.PALETTE, strict=False):
        seconds = [run["seconds"] for run in each["runs"]]
        reached = [100 * run["test_accuracy"] for run in each["runs"]]
        axes.plot(seconds, reached, "o", color=colour, label=each["name"], alpha=0.8)
    one = found[0]
    axes.set_xlim(left=0)
    axes.set_xlabel(f"seconds on {one['threads']} threads of {one['hardware']}, {one['precision']}")
    axes.set_ylabel("test accuracy, six views (%)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def own() -> str:
    """The table of results/own/: each set at the recipe's rate, and its accuracy at a found one."""
    lines = [
        "| pictures | for training | epochs | test % | with `--lr auto` | train % | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "results" / "own").glob("*.json")):
        if path.stem.endswith("-lr-auto"):
            continue
        run = files.read_json(path)
        auto = files.read_json(path.with_stem(f"{path.stem}-lr-auto"))
        cells = [
            path.stem,
            f"{run['train_images']:,}",
            f"{run['epochs']:.0f}",
            f"{100 * run['test_accuracy']:.2f}",
            f"{100 * auto['test_accuracy']:.2f}",
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
    """Write the tables and the picture."""
    files.write_bytes(README, filled(README.read_text()).encode())
    files.write_bytes(OWN, tables.fill(OWN.read_text(), "own", own()).encode())
    plots.save(picture(contenders()), PICTURE)


if __name__ == "__main__":
    main()
