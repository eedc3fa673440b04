"""Compact summaries of runs, and the tables that are shown of them."""

from itertools import groupby
from pathlib import Path
from typing import Any

from onecycle import files
from onecycle.evaluation.compare import Spread, spread
from onecycle.run.record import ENVIRONMENT, SUMMARY

SAME = ("data", "recipe", "recipe_digest", "data_digest", "hardware", "precision", "threads")
REPORTED = "reported test / train %"
COLUMNS = ["recipe", REPORTED, "data", "epochs", "seeds", "test %", "train %", "gap", "seconds"]
COLUMNS += ["machine", "parameters"]


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
    has a row even before there is a result. Data or a machine that all have in common is named
    once, above the table.
    """

    def key(result: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(result[name]) for name in SAME)

    rows = [_row(list(group), reported) for _, group in groupby(sorted(results, key=key), key)]
    common = {name: rows[0][name] for name in ("data", "machine") if _alike(rows, name)}
    ran = {result["recipe"] for result in results}
    rows += [_said(name, reported) for name in reported if name not in ran]
    columns = [name for name in COLUMNS if name not in common]
    lines = ["".join(f"{name.capitalize()}: {value}. " for name, value in common.items()).rstrip()]
    lines += ["", _line(columns), "|" + "---|" * len(columns)]
    lines += [_line([row.get(name, "-") for name in columns]) for row in rows]
    return "\n".join(lines).lstrip()


def _alike(rows: list[dict[str, str]], name: str) -> bool:
    """Whether there is one value of that name in all of `rows`."""
    return len({row[name] for row in rows}) == 1


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(rows: list[dict[str, Any]], reported: dict[str, dict[str, str]]) -> dict[str, str]:
    """The cells, by column, of runs that share a row."""
    one = rows[0]
    spreads = {
        name: spread([row[name] for row in rows])
        for name in ("test_accuracy", "train_accuracy", "gap", "seconds")
    }
    return {
        **_said(one["recipe"], reported),
        "data": one["data"],
        "epochs": f"{one['epochs']:g}",
        "seeds": str(len(rows)),
        "test %": percent(spreads["test_accuracy"]),
        "train %": percent(spreads["train_accuracy"]),
        "gap": f"{100 * spreads['gap'].mean:.2f}",
        "seconds": f"{spreads['seconds'].mean:,.0f}",
        "machine": machine(one),
        "parameters": f"{one['parameters']:,}",
    }


def machine(result: dict[str, Any]) -> str:
    """What `result` was computed on, in words."""
    return f"{result['threads']} threads of {result['hardware']}, {result['precision']}"


def _said(recipe: str, reported: dict[str, dict[str, str]]) -> dict[str, str]:
    """The cells of `recipe` that need no run."""
    said = reported.get(recipe)
    return {"recipe": recipe, REPORTED: f"{said['test']} / {said['train']}" if said else "-"}


def fill(page: str, name: str, table: str) -> str:
    """`page` with `table` between the comments that say where `name` begins and ends."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table}\n{end}{after}"
