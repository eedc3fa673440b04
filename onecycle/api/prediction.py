"""Prediction as a Python function: what a finished run says of any pictures."""

from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np
from PIL import Image

from onecycle import machine, progress
from onecycle.errors import RecipeError
from onecycle.use.classifier import trained
from onecycle.use.pictures import Given
from onecycle.use.prediction import Prediction, predictions
from onecycle.use.pretrained import chosen


def predict(
    run: str | PathLike[str] | None,
    images: Given | Iterable[Given],
    *,
    pretrained: str | None = None,
    top: int = 3,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Iterator[Prediction]:
    """What the final weights of a finished run say of pictures; an iterator, in their order.

    `images` is one or several of: paths of image files or of folders, PIL images, and arrays (H, W,
    3) or (N, H, W, 3) uint8. All are brought to the run's image size by the rules of its training
    data. Each prediction has the `top` likeliest classes; their probabilities are calibrated if the
    run has a validation part. With `pretrained`, the name of a network that comes with the package,
    and None for `run`, that one says it. Of a file that can't be used it says the problem.

    Raises RecipeError for a run that is missing or not finished or wrong arguments, DiskError; and,
    as the predictions are taken, DataError if there is no image.
    """
    if top < 1:
        raise RecipeError(f"--top {top}: give at least 1")
    use = trained(chosen(run, pretrained), machine.choose(device, "fp32", threads))
    progress.Show(quiet).note(f"predicting on {use.machine.device}; {use.calibration}")
    single = isinstance(images, str | PathLike | Image.Image | np.ndarray)
    return predictions(use, [images] if single else images, top)  # type: ignore[list-item,arg-type]
