"""A finished run's network made ready for use: plain pixels in, calibrated probabilities out."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onecycle.machine import Machine
from onecycle.run import record, reopen


class Classifier(nn.Module):
    """Pixels (N, H, W, 3) uint8 in, probabilities (N, classes) fp32 out."""

    def __init__(self, network: nn.Module, temperature: float | None) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature or 1.0

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.softmax(self.network(pixels) / self.temperature, dim=1)


@dataclass(frozen=True)
class Trained:
    """What a finished run has learned, found in its folder alone.

    `temperature` divides the logits (Guo et al. 2017); None where none could be fitted, and
    `calibration` says which, in words.
    """

    folder: Path
    model: Classifier
    machine: Machine
    classes: tuple[str, ...]
    image_size: int
    temperature: float | None
    calibration: str

    @torch.inference_mode()
    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of images (N, S, S, 3), S the image size."""
        given = torch.from_numpy(pixels).to(self.machine.device)
        found: NDArray[np.float32] = self.model(given).cpu().numpy()
        return found


def trained(run: str | PathLike[str], machine: Machine) -> Trained:
    """The final weights of the finished run `run` on `machine`, and the temperature they need.

    Raises RecipeError for a run that is missing or not finished, DiskError.
    """
    folder = reopen.finished(run)
    about = reopen.images(folder)
    temperature, calibration = _calibration(folder)
    model = Classifier(reopen.network(folder, machine), temperature).eval()
    return Trained(
        folder, model, machine, about.classes, about.image_size, temperature, calibration
    )


def _calibration(folder: Path) -> tuple[float | None, str]:
    """The temperature fitted on the run's validation part, and where it is from or why not."""
    if not record.has_predictions(folder, "val"):
        return None, "not calibrated: the run has no validation part to fit a temperature on"
    from onecycle.evaluation.temperature import fit_temperature  # needs scipy, which loads slowly

    validation = record.read_predictions(folder, "val")
    on = f"{len(validation[1]):,} validation images"
    temperature = fit_temperature(*validation)
    if temperature is None:
        return None, f"not calibrated: no finite temperature is best on {on}"
    return temperature, f"calibrated: temperature {temperature:.3f}, fitted on {on}"
