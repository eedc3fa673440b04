"""Finished and unfinished runs as rows of one table, and what tells runs apart."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onecycle import files
from onecycle.errors import RecipeError, did_you_mean
from onecycle.evaluation.compare import Difference, Spread, over_images, over_seeds, spread
from onecycle.reporting.tables import compact
from onecycle.run import record

Row = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """What is compared: one run, or all the runs below one folder."""

    name: str
    rows: list[Row]

    @property
    def accuracy(self) -> Spread:
        """Test accuracies of the runs, fractions."""
        return spread([row["test_accuracy"] for row in self.rows])


def collect(path: Path) -> list[Row]:
    """A row for each run at or below `path`, or for each published summary (a JSON file).

    An unfinished run has no accuracy. Raises RecipeError if there is nothing, DiskError for a
    file that can't be read.
    """
    if not path.exists():
        raise RecipeError(f"{path}: there is no such run or folder")
    if path.suffix == ".json" and path.is_file():
        found = [_published(path)]
    else:
        found = [_row(run) for run in _runs(path)]
        found = found or [_published(each) for each in sorted(path.glob("*.json"))]
    rows = [row for row in found if row]
    if not rows:
        raise RecipeError(f"{path}: no run is there, nor below it")
    return rows


def select(rows: list[Row], where: list[str]) -> list[Row]:
    """The rows that fulfil every `key=pattern`, such as `recipe=davidnet*`."""
    for condition in where:
        key, equals, pattern = condition.partition("=")
        if not equals:
            raise RecipeError(f"--where {condition}: write key=pattern, such as recipe=davidnet*")
        _check_key(rows, key, "--where")
        rows = [row for row in rows if _fulfils(row.get(key, ""), pattern)]
    return rows


def _fulfils(value: Any, pattern: str) -> bool:
    with suppress(ValueError):
        if isinstance(value, int | float):
            return float(value) == float(pattern)
    return fnmatchcase(str(value), pattern)


def order(rows: list[Row], key: str) -> list[Row]:
    """The rows by `key`, largest first if it begins with `-`; those without it come last."""
    name = key.removeprefix("-")
    _check_key(rows, name, "--sort")
    have = [row for row in rows if row.get(name) is not None]
    numbers = all(isinstance(row[name], int | float) for row in have)
    have.sort(key=lambda r: r[name] if numbers else str(r[name]), reverse=key.startswith("-"))
    return have + [row for row in rows if row.get(name) is None]


def candidates(paths: list[Path], where: list[str]) -> list[Candidate]:
    """What each of `paths` has to compare: its finished runs `where` that holds.

    Raises RecipeError for a path without any, with several recipes or data sets, or with a seed
    twice, which is the same run again.
    """
    return [_candidate(path, where) for path in paths]


def recipe_differences(compared: list[Candidate]) -> dict[str, list[Any]]:
    """Dotted recipe keys whose values differ, with the value (None: off) that each one has."""
    flat = [dict(_flat(files.read_json(_folder(c) / record.RECIPE)["recipe"])) for c in compared]
    keys = sorted({key for each in flat for key in each} - {"name", "about"})
    table = {key: [each.get(key) for each in flat] for key in keys}
    return {key: values for key, values in table.items() if any(v != values[0] for v in values)}


def accuracy_differences(compared: list[Candidate]) -> list[Row]:
    """Each pair's difference in test accuracy: Welch over seeds, or McNemar over test images.

    A pair that no test fits has a `reason` in place of figures.
    """
    rows = []
    for first, second in combinations(compared, 2):
        outcome = _difference(first, second)
        told = {"reason": outcome} if isinstance(outcome, str) else _told(outcome)
        rows.append({"first": first.name, "second": second.name, **told})
    return rows


def _told(outcome: Difference) -> Row:
    return asdict(outcome) | {"significant": outcome.significant}


def _difference(first: Candidate, second: Candidate) -> Difference | str:
    if first.rows[0]["data_digest"] != second.rows[0]["data_digest"]:
        return "trained and tested on different data"
    if len(first.rows) > 1 and len(second.rows) > 1:
        found = over_seeds(*([row["test_accuracy"] for row in c.rows] for c in (first, second)))
        return found or "the seeds of each all have one accuracy, so there is no spread to judge by"
    if len(first.rows) > 1 or len(second.rows) > 1:
        return "one run against several: give both several seeds"
    return over_images(_right(_folder(first)), _right(_folder(second)))


def _right(run: Path) -> NDArray[np.bool_]:
    """Which test images the run got right, (N,)."""
    probabilities, labels = record.read_predictions(run, "test")
    right: NDArray[np.bool_] = probabilities.argmax(axis=1) == labels
    return right


def _candidate(path: Path, where: list[str]) -> Candidate:
    rows = [row for row in select(collect(path), where) if row.get("test_accuracy") is not None]
    if not rows:
        raise RecipeError(f"{path}: no finished run is there to compare")
    for key in ("recipe_digest", "data_digest"):
        if len({row[key] for row in rows}) > 1:
            raise RecipeError(f"{path} holds runs that differ in {key}: name one of them")
    seeds = [row["seed"] for row in rows]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise RecipeError(
            f"{path} holds seed {twice[0]} more than once, which is no further evidence: name one "
            "of them, or choose with --where"
        )
    if not (Path(rows[0]["run"]) / record.RECIPE).is_file():
        raise RecipeError(f"{path} is a published summary: runs are compared by their folders")
    return Candidate(str(path), rows)


def _folder(candidate: Candidate) -> Path:
    return Path(candidate.rows[0]["run"])


def _runs(path: Path) -> Iterator[Path]:
    """The run folders at or below `path`; a run's own folders are not looked into."""
    if (path / record.RECIPE).is_file() and (path / record.EVENTS).is_file():
        yield path
        return
    with files.disk_errors(path, "read"):
        folders = sorted(each for each in path.iterdir() if each.is_dir())
    for folder in folders:
        yield from _runs(folder)


def _row(run: Path) -> Row:
    if (run / record.SUMMARY).is_file():
        return compact(run) | {"run": str(run), "state": "finished"}
    recipe = files.read_json(run / record.RECIPE)
    done = int(record.read_metrics(run)[-1]["epoch"]) if (run / record.METRICS).is_file() else 0
    environment = files.read_json(run / record.ENVIRONMENT)
    # Runs of before recipes were sized for their data have none written down.
    epochs = environment.get("epochs", recipe["recipe"]["epochs"])
    return {
        "run": str(run),
        "state": f"{done} of {epochs:g} epochs",
        "recipe": recipe["recipe"]["name"],
        "recipe_digest": recipe["digest"],
        "data": environment["data"]["name"],
        "data_digest": environment["data"]["digest"],
        "seed": environment["seed"],
        "epochs": epochs,
    }


def _published(path: Path) -> Row | None:
    content = files.read_json(path)
    if not isinstance(content, dict) or "recipe_digest" not in content:
        return None
    return content | {"run": path.stem, "state": "published"}


def _check_key(rows: list[Row], key: str, option: str) -> None:
    known = sorted({name for row in rows for name in row})
    if rows and key not in known:
        raise RecipeError(f"{option} {key}: no run has that{did_you_mean(key, known)}")


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested table."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}{key}.")
    elif isinstance(content, list) and any(isinstance(each, dict) for each in content):
        for i, value in enumerate(content):
            yield from _flat(value, f"{prefix}{i}.")
    else:
        yield prefix[:-1], content
