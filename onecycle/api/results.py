"""Many runs at once, as a Python function: one table, and what tells named runs apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onecycle import files
from onecycle.errors import RecipeError
from onecycle.reporting import plots, tables
from onecycle.reporting import results as reading
from onecycle.run import record


@dataclass(frozen=True)
class Results:
    """Runs as rows; with two or more named, also what they are compared by."""

    rows: list[dict[str, Any]]
    compared: list[reading.Candidate]

    @property
    def recipe_differences(self) -> dict[str, list[Any]]:
        """Dotted recipe keys whose values differ between the named, and each one's value."""
        return reading.recipe_differences(self.compared) if self.compared else {}

    @property
    def accuracy_differences(self) -> list[dict[str, Any]]:
        """Each pair of the named: difference in test accuracy, interval, p-value and test."""
        return reading.accuracy_differences(self.compared)

    def curves(self) -> Figure:
        """The learning curves of all finished runs in the table, one colour a name."""
        named = self.compared or [
            reading.Candidate(row["run"], [row])
            for row in self.rows
            if (Path(row["run"]) / record.METRICS).is_file()
        ]
        if not named:
            raise RecipeError("no run folder among these has learning curves")
        return plots.overlay(
            [(one.name, [record.read_metrics(Path(r["run"])) for r in one.rows]) for one in named]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the rows, and the differences if runs were named."""
        content: dict[str, Any] = {"runs": self.rows}
        if self.compared:
            content["recipe_differences"] = self.recipe_differences
            content["accuracy_differences"] = self.accuracy_differences
        return content


def results(
    *paths: str | Path,
    where: str | tuple[str, ...] | list[str] = (),
    sort: str = "run",
    publish: str | Path | None = None,
) -> Results:
    """The runs at or below each of `paths` (`runs` if none is given), finished or not.

    Two or more paths are also compared: each is a run, or a folder with several seeds of one
    recipe. `where` holds `key=pattern` conditions for the rows, `sort` a key (`-key`: from the
    largest). `publish` names a folder that gets a compact JSON summary of each finished run. Raises
    RecipeError for a path without runs, an unknown key, or runs that can't be compared.
    """
    given = [Path(path) for path in paths] or [Path("runs")]
    rows = [row for path in given for row in reading.collect(path)]
    wanted = [where] if isinstance(where, str) else list(where)
    rows = reading.order(reading.select(rows, wanted), sort)
    compared = reading.candidates(given, wanted) if len(given) > 1 else []
    if publish is not None:
        _publish([row for row in rows if row["state"] == "finished"], Path(publish))
    return Results(rows, compared)


def _publish(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write each row's compact summary into `folder`, named after its run.

    RecipeError, and nothing written, if two runs have the same name.
    """
    named: dict[str, Path] = {}
    for run in (Path(row["run"]) for row in rows):
        # Seeds of one recipe lie in a folder of their own, whose name tells them apart.
        grouped = (run.parent / record.SEEDS).is_file()
        name = f"{run.resolve().parent.name}-{run.name}" if grouped else run.resolve().name
        if (other := named.setdefault(name, run)).resolve() != run.resolve():
            raise RecipeError(
                f"--publish: {other} and {run} would both be {name}.json: rename one, or publish "
                "them apart"
            )
    files.make_folder(folder)
    for name, run in named.items():
        files.write_json(folder / f"{name}.json", tables.compact(run) | {"run": name})
