"""Compact summaries of runs, and the tables that are shown of them."""

from itertools import groupby
from pathlib import Path
from typing import Any

from onecycle import files
from onecycle.evaluation.compare import Spread, spread
from onecycle.run.record import ENVIRONMENT, SUMMARY

SAME = ("data", "recipe", "recipe_digest", "data_digest", "hardware", "precision", "threads")


def compact(run: Path) -> dict[str, Any]:
    """What `results/` keeps of a finished run: its summary, hardware and versions."""
    summary: dict[str, Any] = files.read_json(run / SUMMARY)
    environment = files.read_json(run / ENVIRONMENT)
    summary["run"] = run.name
    kept = ("hardware", "python", "versions", "val_fraction")
    return {**summary, **{key: environment[key] for key in kept}}


def text(rows: list[dict[str, str]], right: set[str]) -> str:
    """`rows` as aligned columns under their keys; those in `right` are aligned to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    width = {key: max(len(line.get(key, "")) for line in lines) for key in columns}

    def cell(line: dict[str, str], key: str) -> str:
        value = line.get(key, "")
        return value.rjust(width[key]) if key in right else value.ljust(width[key])

    return "\n".join("  ".join(cell(line, key) for key in columns).rstrip() for line in lines)


def percent(accuracies: Spread) -> str:
    """Accuracies (fractions) in per cent, with half the width of their mean's interval."""
    if accuracies.high is None:
        return f"{100 * accuracies.mean:.2f}"
    return f"{100 * accuracies.mean:.2f} ± {100 * (accuracies.high - accuracies.mean):.2f}"


def markdown(results: list[dict[str, Any]], reported: dict[str, dict[str, str]]) -> str:
    """A table of the accuracies in `results`; the seeds of a recipe on a machine share a row.

    Means, with the 95 % interval of the mean where there are several seeds. `reported` has what
    the authors of a recipe say of it, in per cent on the original images, by recipe; such a recipe
    has a row even before there is a result.
    """
    columns = "recipe, reported test / train %, data, epochs, seeds, test %, train %, gap, seconds"
    columns += ", machine, parameters"
    lines = ["| " + columns.replace(", ", " | ") + " |", "|" + "---|" * (columns.count(",") + 1)]

    def key(result: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(result[name]) for name in SAME)

    done = [_row(list(group), reported) for _, group in groupby(sorted(results, key=key), key)]
    ran = {result["recipe"] for result in results}
    waiting = [[name, _said(name, reported)] + ["-"] * 9 for name in reported if name not in ran]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in done + waiting)])


def _row(rows: list[dict[str, Any]], reported: dict[str, dict[str, str]]) -> list[str]:
    one = rows[0]
    spreads = {
        name: spread([row[name] for row in rows])
        for name in ("test_accuracy", "train_accuracy", "gap", "seconds")
    }
    return [
        one["recipe"],
        _said(one["recipe"], reported),
        one["data"],
        f"{one['epochs']:g}",
        str(len(rows)),
        percent(spreads["test_accuracy"]),
        percent(spreads["train_accuracy"]),
        f"{100 * spreads['gap'].mean:.2f}",
        f"{spreads['seconds'].mean:,.0f}",
        f"{one['threads']} threads of {one['hardware']}, {one['precision']}",
        f"{one['parameters']:,}",
    ]


def _said(recipe: str, reported: dict[str, dict[str, str]]) -> str:
    said = reported.get(recipe)
    return f"{said['test']} / {said['train']}" if said else "-"


def fill(page: str, name: str, table: str) -> str:
    """`page` with `table` between the comments that say where `name` begins and ends."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table}\n{end}{after}"
