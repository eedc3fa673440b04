"""Several seeds of one recipe: means, deviations and intervals of all their figures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onecycle import files
from onecycle.evaluation import metrics
from onecycle.evaluation.compare import spread
from onecycle.run import record

FIGURES = ("test_accuracy", "test_loss", "val_accuracy", "train_accuracy", "gap", "seconds")
PER_CLASS = ("recall", "precision", "f1")


def summarize(runs: list[Path]) -> dict[str, Any]:
    """What the finished `runs` have in common, and the spread of each of their figures.

    A spread is a mean, a standard deviation and the 95 % interval of the mean. Proportions are
    fractions.
    """
    summaries = [files.read_json(run / record.SUMMARY) for run in runs]
    same = ("recipe", "recipe_digest", "data", "data_digest", "epochs", "parameters")
    return {
        **{key: summaries[0][key] for key in same},
        "runs": [str(run) for run in runs],
        "seeds": [summary["seed"] for summary in summaries],
        **{
            key: asdict(spread([summary[key] for summary in summaries]))
            for key in FIGURES
            if key in summaries[0]
        },
        "per_class": _per_class(runs),
    }


def _per_class(runs: list[Path]) -> dict[str, dict[str, Any]]:
    """By class, the spread of its recall (the accuracy on it), precision and F1."""
    classes = tuple(files.read_json(runs[0] / record.CLASSES))
    tables = [metrics.per_class(*record.read_predictions(run, "test"), classes) for run in runs]
    found: dict[str, dict[str, Any]] = {}
    for rows in zip(*tables, strict=True):
        values = {key: [row[key] for row in rows if not np.isnan(row[key])] for key in PER_CLASS}
        found[rows[0]["class"]] = {
            key: asdict(spread(each)) if each else None for key, each in values.items()
        }
    return found
