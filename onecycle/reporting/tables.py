"""Compact summaries of runs, and the tables that are shown of them."""

from itertools import groupby
from pathlib import Path
from typing import Any

from onecycle import files
from onecycle.evaluation.compare import Spread, spread
from onecycle.run.record import ENVIRONMENT, SUMMARY

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
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


def markdown(results: list[dict[str, Any]]) -> str:
    """A table of the accuracies in `results`; the seeds of a recipe on a machine share a row.

    Means, with the 95 % interval of the mean where there are several seeds.
    """
    lines = [
        "| recipe | data | epochs | seeds | test % | train % | seconds | machine | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def key(result: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(result[name]) for name in SAME)

    for _, group in groupby(sorted(results, key=key), key):
        rows = list(group)
        one = rows[0]
        test, train = (
            percent(spread([row[name] for row in rows]))
            for name in ("test_accuracy", "train_accuracy")
        )
        seconds = spread([row["seconds"] for row in rows]).mean
        machine = f"{one['threads']} threads of {one['hardware']}, {one['precision']}"
        lines.append(
            f"| {one['recipe']} | {one['data']} | {one['epochs']:g} | {len(rows)} | {test} "
            f"| {train} | {seconds:,.0f} | {machine} | {one['parameters']:,} |"
        )
    return "\n".join(lines)


def fill(page: str, results: list[dict[str, Any]]) -> str:
    """`page` with what stands between the two markers replaced by the table of `results`."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}"
