"""What a trained network says of pictures, one after another, however many there are."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onecycle.errors import DataError
from onecycle.machine import usable_cores
from onecycle.use.classifier import Trained
from onecycle.use.pictures import Given, Picture, decoded, singles

TOGETHER = 32  # pictures that a thread decodes and judges in one go
MOST_DECODERS = 8  # threads beside an accelerator


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

    Threads decode and judge some pictures each, so that none waits for another. Raises DataError
    if there is none or an open image can't be used, RecipeError for what is no picture.
    """
    machine = trained.machine
    threads = machine.threads if machine.device == "cpu" else min(MOST_DECODERS, usable_cores())
    # What is open is brought to its size here: an iterator may put its next picture into the same.
    pictures = (
        one if isinstance(one, Path) else decoded(one, trained.image_size) for one in singles(given)
    )
    pending: deque[Future[list[Prediction]]] = deque()
    empty = True
    try:
        with ThreadPoolExecutor(threads, "predict", torch.set_num_threads, (1,)) as pool:
            while some := list(islice(pictures, TOGETHER)):
                empty = False
                pending.append(pool.submit(_predicted, trained, some, top))
                if len(pending) > 2 * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
    finally:
        torch.set_num_threads(machine.threads)  # the threads' own numbers reach into MKL's
    if empty:
        raise DataError("no images there: name image files, or folders that hold some")


def _predicted(trained: Trained, pictures: list[Path | Picture], top: int) -> list[Prediction]:
    calibrated = trained.temperature is not None
    each = [decoded(one, trained.image_size) if isinstance(one, Path) else one for one in pictures]
    usable = [one.pixels for one in each if not isinstance(one.pixels, str)]
    found = iter(trained.probabilities(np.stack(usable))) if usable else iter(())
    return [
        Prediction(one.name, (), calibrated, one.pixels)
        if isinstance(one.pixels, str)
        else Prediction(one.name, _likeliest(trained.classes, next(found), top), calibrated)
        for one in each
    ]


def _likeliest(
    classes: tuple[str, ...], shares: NDArray[np.float32], top: int
) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-shares, kind="stable")[:top]
    return tuple((classes[i], float(shares[i])) for i in order)
