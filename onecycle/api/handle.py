"""A run as its users hold it: the folder, read when asked."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onecycle import files
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.run import record


@dataclass(frozen=True)
class Run:
    """A finished or unfinished run: its folder, read when asked."""

    path: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The result: accuracies as fractions, seconds, recipe, data, machine."""
        summary: dict[str, Any] = files.read_json(self.path / record.SUMMARY)
        return summary

    @cached_property
    def recipe(self) -> Recipe:
        """What was done."""
        return book.find(str(self.path / record.RECIPE))

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row an epoch."""
        return record.read_metrics(self.path)

    @property
    def test_accuracy(self) -> float:
        """Top-1 accuracy of the final weights on the test part, a fraction."""
        return float(self.summary["test_accuracy"])

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Test probabilities (N, classes) of the final weights, computed in fp32."""
        path = self.path / record.PROBABILITIES
        with files.disk_errors(path, "read"):
            loaded: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return loaded
