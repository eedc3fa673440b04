"""A run as its users hold it: the folder, read and judged when asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from onecycle import files
from onecycle.api.evaluation import Evaluation, assess, evaluate
from onecycle.api.gallery import gallery
from onecycle.api.prediction import predict
from onecycle.api.report import Report, report
from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting.gallery import PAGE
from onecycle.run import record, reopen
from onecycle.use.pictures import Given
from onecycle.use.prediction import Prediction


@dataclass(frozen=True)
class Run:
    """A finished or unfinished run: its folder, read when asked."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

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
        return record.read_predictions(self.path, "test")[0]

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        tta: str = "none",
        device: str = "auto",
        threads: int | None = None,
        quiet: bool = False,
    ) -> Evaluation:
        """`onecycle.evaluate` of this run."""
        return evaluate(self, data, tta=tta, device=device, threads=threads, quiet=quiet)

    def confusion(self) -> Figure:
        """The confusion matrix of the test part, without test-time augmentation."""
        return assess(self).confusion()

    def top_losses(self, count: int = 25) -> Figure:
        """The test images with the highest loss, right or wrong, up to a hundred on one page.

        `onecycle.gallery` has more to choose from.
        """
        if count > PAGE:
            raise RecipeError(f"top_losses({count}): at most {PAGE} fit, onecycle.gallery has more")
        return gallery(self, count, show="all", quiet=True).figures()[0]

    def predict(
        self,
        images: Given | Iterable[Given],
        *,
        top: int = 3,
        device: str = "auto",
        threads: int | None = None,
        quiet: bool = True,
    ) -> list[Prediction]:
        """`onecycle.predict` by this run, as a list."""
        return list(predict(self, images, top=top, device=device, threads=threads, quiet=quiet))

    def report(
        self, *, out: str | Path | None = None, card: str | Path | None = None, quiet: bool = False
    ) -> Report:
        """`onecycle.report` of this run."""
        return report(self, out=out, card=card, quiet=quiet)


def load(path: str | PathLike[str]) -> Run:
    """The run in the folder `path`, finished or not; RecipeError if none is there."""
    return Run(reopen.begun(path))
