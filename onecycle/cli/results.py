"""`onecycle results`."""

import csv
import json
import sys
from typing import Annotated, Any

from cyclopts import Parameter

import onecycle
from onecycle.cli.app import Json, app
from onecycle.errors import RecipeError

SHOWN = ("state", "data", "seed", "epochs", "test_accuracy", "val_accuracy", "gap", "seconds")
RIGHT = {"seed", "epochs", "test_accuracy", "val_accuracy", "gap", "seconds"}


@app.command
def results(
    *paths: str,
    where: Annotated[list[str] | None, Parameter(negative=())] = None,
    sort: str = "run",
    publish: str | None = None,
    plot: str | None = None,
    csv_: Annotated[bool, Parameter(name="--csv", negative=())] = False,
    json_: Json = False,
) -> None:
    """List runs in one table; two or more that are named are also compared.

    Parameters
    ----------
    paths:
        Runs, folders that hold runs, or published summaries; 'runs' by default.
    where:
        Keep the runs whose key fits a pattern: --where recipe=davidnet* --where seed=0.
    sort:
        The key to sort by; --sort=-test_accuracy begins with the largest.
    publish:
        Write a compact JSON summary of each finished run into this folder.
    plot:
        Draw the learning curves, one over the other, into this PNG file.
    csv_:
        Print the table as CSV, with every key.
    json_:
        Print everything as one JSON object.
    """
    from pathlib import Path

    from onecycle.reporting import plots

    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise RecipeError(f"--plot {plot}: it will be a PNG, so let its name end in .png")
    found = onecycle.results(*paths, where=where or [], sort=sort, publish=publish)
    if plot is not None:
        plots.save(found.curves(), Path(plot))
    if json_:
        print(json.dumps(found.to_dict()))
    elif csv_:
        _print_csv(found.rows)
    else:
        _print_table(found.rows)
        _print_differences(found.recipe_differences, found.accuracy_differences)


def _print_csv(rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from onecycle.reporting.tables import text

    shown = [{"run": row["run"]} | {key: _cell(key, row.get(key)) for key in SHOWN} for row in rows]
    print(text(shown, RIGHT) if shown else "no run fulfils that")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key in ("test_accuracy", "val_accuracy", "gap"):
        return f"{value:.2%}"
    return f"{value:,.0f}" if key == "seconds" else str(value)


def _print_differences(recipes: dict[str, list[Any]], accuracies: list[dict[str, Any]]) -> None:
    if recipes:
        print("\nrecipes differ in")
        for key, values in recipes.items():
            print(f"  {key}: {' | '.join('off' if v is None else str(v) for v in values)}")
    for row in accuracies:
        print(f"\n{row['first']} against {row['second']}")
        if "reason" in row:
            print(f"  not compared: {row['reason']}")
            continue
        points = [f"{100 * row[key]:+.2f}" for key in ("difference", "low", "high")]
        verdict = "they differ" if row["significant"] else "chance alone would explain it"
        print(
            f"  {points[0]} points of test accuracy, 95 % interval {points[1]} to {points[2]}; "
            f"p = {row['p']:.2g} ({row['test']}): {verdict}"
        )
