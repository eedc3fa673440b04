"""What a trained network says of pictures, one after another, however many there are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from onecycle.errors import DataError
from onecycle.evaluation.predict import BATCH, BATCH_ON_ACCELERATOR
from onecycle.use.classifier import Trained
from onecycle.use.pictures import Given, Picture, decoded


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture with their probabilities, the likeliest first.

    `file` is empty for what is no file. Where a file can't be used, `problem` says why, and `top`
    is empty.
    """

    file: str
    top: tuple[tuple[str, float], ...]
    calibrated: bool
    problem: str = ""

    @property
    def label(self) -> str:
        """The likeliest class. Raises DataError if the file can't be used."""
        return self._first[0]

    @property
    def probability(self) -> float:
        """That of `label`. Raises DataError if the file can't be used."""
        return self._first[1]

    @property
    def _first(self) -> tuple[str, float]:
        if self.problem:
            raise DataError(f"{self.file}: {self.problem}")
        return self.top[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them. Raises DataError if the file can't be used."""
        return {
            "file": self.file,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": name, "probability": share} for name, share in self.top],
            "calibrated": self.calibrated,
        }


def predictions(trained: Trained, given: Iterable[Given], top: int) -> Iterator[Prediction]:
    """A prediction of each picture in `given`, in order; memory is bounded.

    Raises DataError if there is none, and as `decoded` does.
    """
    pictures = decoded(given, trained.image_size)
    batch = BATCH.get(trained.machine.device, BATCH_ON_ACCELERATOR)
    empty = True
    while pieces := list(islice(pictures, batch)):
        empty = False
        yield from _predicted(trained, pieces, top)
    if empty:
        raise DataError("no images there: name image files, or folders that hold some")


def _predicted(trained: Trained, pictures: list[Picture], top: int) -> Iterator[Prediction]:
    calibrated = trained.temperature is not None
    usable = [one.pixels for one in pictures if not isinstance(one.pixels, str)]
    found = iter(trained.probabilities(np.stack(usable))) if usable else iter(())
    for one in pictures:
        if isinstance(one.pixels, str):
            yield Prediction(one.name, (), calibrated, one.pixels)
            continue
        shares = next(found)
        order = np.argsort(-shares, kind="stable")[:top]
        likeliest = tuple((trained.classes[i], float(shares[i])) for i in order)
        yield Prediction(one.name, likeliest, calibrated)
