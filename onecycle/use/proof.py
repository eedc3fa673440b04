"""Proof that an exported file says what the run said, and how long it takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from onecycle import files
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.fetch import Progress as Downloading
from onecycle.datasets.noise import noise
from onecycle.errors import OnecycleError
from onecycle.evaluation.temperature import with_temperature
from onecycle.run import record, reopen
from onecycle.use.classifier import Trained
from onecycle.use.formats import Predict

MOST = 1000  # images, evenly spread over the test part
TOGETHER = 64  # images of a batch
CLOSE = 1e-4  # difference between the two likeliest classes below which either may win
TIMES, WARM_UP = 15, 3  # calls that are timed, and those before them


@dataclass(frozen=True)
class Sample:
    """Images (N, S, S, 3), what the run says of them, (N, classes), and what they are."""

    pixels: NDArray[np.uint8]
    expected: NDArray[np.floating]
    name: str


def sample(
    trained: Trained,
    progress: Callable[[int], None] | None = None,
    downloading: Downloading | None = None,
) -> Sample:
    """Test images of the run with its stored predictions; noise where its data isn't found.

    `progress` and `downloading` are told about the loading.
    """
    digest = files.read_json(trained.folder / record.SUMMARY)["data_digest"]
    try:
        data = reopen.dataset(trained.folder, digest, progress, downloading)
    except OnecycleError as error:
        pixels = noise(len(trained.classes), trained.image_size).train.images(0, TOGETHER)
        name = f"{TOGETHER} images of noise, for lack of the run's data ({error})"
        return Sample(pixels, trained.probabilities(pixels), name)
    return _of_test(trained, data)


def _of_test(trained: Trained, data: Dataset) -> Sample:
    count = len(data.test)
    rows = np.unique(np.linspace(0, count - 1, min(count, MOST)).round().astype(np.int64))
    stored = record.read_predictions(trained.folder, "test")[0][rows]
    expected = with_temperature(stored, trained.model.temperature)
    name = f"{len(rows):,} of {count:,} test images of {data.name}"
    return Sample(data.test.subset(rows).images(), expected, name)


def largest_difference(predict: Predict, sample: Sample) -> float:
    """That between a probability by `predict` and what the run says.

    One image is given alone. Raises OnecycleError if anything is not a finite number, or if a
    likeliest class is another one, except where the run's two likeliest are closer than `CLOSE`.
    """
    cuts = [0, 1, *range(1 + TOGETHER, len(sample.pixels), TOGETHER), len(sample.pixels)]
    parts = [predict(sample.pixels[i:j]) for i, j in pairwise(cuts) if i < j]
    found = np.concatenate(parts)
    second, first = np.partition(sample.expected, -2, axis=1)[:, -2:].T
    other = found.argmax(1) != sample.expected.argmax(1)
    wrong = int((other & (first - second > CLOSE)).sum())
    difference = float(np.abs(found - sample.expected).max())
    if wrong or not np.isfinite(difference):
        raise OnecycleError(
            f"the exported file says another class than the run on {wrong} of {sample.name} "
            f"(largest difference of a probability {difference:.2g}): nothing was written"
        )
    return difference


def milliseconds(predict: Predict, sample: Sample, count: int) -> float:
    """The median time of a call with `count` images."""
    pixels = np.resize(sample.pixels, (count, *sample.pixels.shape[1:]))
    seconds = []
    for _ in range(WARM_UP + TIMES):
        start = time.perf_counter()
        predict(pixels)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[WARM_UP:]))
