"""An evaluation's tables as CSV. Fractions as they are; n/a where there is nothing to divide by."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from onecycle.evaluation.metrics import row_shares


def per_class(evaluation: dict[str, Any]) -> bytes:
    """A row a class; the last column says which test-time augmentation the figures are with."""
    rows = evaluation["classes"]
    lines = [[*row.values(), evaluation["tta"]] for row in rows]
    return text([[*rows[0], "tta"], *lines])


def confusion(evaluation: dict[str, Any]) -> bytes:
    """Counts: a row an actual class, a column a predicted one."""
    return _matrix(evaluation, evaluation["confusion"])


def confusion_shares(evaluation: dict[str, Any]) -> bytes:
    """The same as shares of the actual class's images."""
    return _matrix(evaluation, row_shares(np.array(evaluation["confusion"])).tolist())


def text(rows: Iterable[Sequence[Any]]) -> bytes:
    """`rows` as CSV in UTF-8, None and NaN as n/a."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    for row in rows:
        writer.writerow(["n/a" if cell is None or cell != cell else cell for cell in row])
    return content.getvalue().encode()


def _matrix(evaluation: dict[str, Any], values: list[list[Any]]) -> bytes:
    names = [row["class"] for row in evaluation["classes"]]
    corner = "actual / predicted"
    if evaluation["tta"] != "none":
        corner += f" ({evaluation['tta_note']})"
    rows = [[name, *row] for name, row in zip(names, values, strict=True)]
    return text([[corner, *names], *rows])
