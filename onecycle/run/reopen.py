"""A run's data and network, found again from its folder."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from onecycle import files
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.fetch import Progress as Downloading
from onecycle.datasets.load import load as load_data
from onecycle.errors import DataError, DiskError, RecipeError, few
from onecycle.machine import Machine
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.run import record


def finished(run: str | PathLike[str]) -> Path:
    """The folder of the finished run `run`; RecipeError if there is none or it isn't finished."""
    folder = begun(run)
    if not (folder / record.SUMMARY).is_file():
        raise RecipeError(
            f"{folder}: this run is not finished: onecycle train --resume "
            f"{shlex.quote(str(folder))} goes on with it"
        )
    return folder


def begun(run: str | PathLike[str]) -> Path:
    """The folder of the run `run`, finished or not; RecipeError if there is none."""
    folder = Path(run)
    with files.disk_errors(folder, "read"):
        if any((folder / several).is_file() for several in (record.SEEDS, record.ABLATION_ASKED)):
            one = next((path.parent for path in sorted(folder.rglob(record.CLASSES))), None)
            named = f", as {one}" if one else ""
            raise RecipeError(f"{folder}: several runs are there: name one{named}")
        if not (folder / record.ENVIRONMENT).is_file():
            raise RecipeError(f"{folder}: no run is there (no {record.ENVIRONMENT})")
    return folder


def dataset(
    folder: Path,
    digest: str | None,
    progress: Callable[[int], None] | None = None,
    downloading: Downloading | None = None,
) -> Dataset:
    """The data that the run in `folder` was trained on, its validation part held out again.

    `digest` is what the data must have, if anything; `progress` and `downloading` are told about
    the loading. Raises DataError if the data is missing or no longer the same.
    """
    made = files.read_json(folder / record.ENVIRONMENT)
    source = made["data"]["source"]
    # Runs of before there was a choice have none written down.
    skip_bad, size = made["data"].get("skip_bad", False), made["data"].get("image_size_asked")
    loaded = load_data(source, progress, downloading, skip_bad=skip_bad, image_size=size)
    if digest is not None and loaded.digest != digest:
        raise DataError(
            f"{source} is not the data that {folder} was trained on "
            f"(digest {loaded.digest[:12]}, then {digest[:12]})"
        )
    if made["val_fraction"]:
        loaded = loaded.hold_out(made["val_fraction"], made["seed"])
    return loaded


def check_fits(folder: Path, data: Dataset) -> None:
    """DataError that names the difference, if the run in `folder` can't be judged on `data`."""
    where = data.source or data.name
    known = files.read_json(folder / record.CLASSES)
    given = list(data.classes)
    lacking = [name for name in known if name not in given]
    unknown = [name for name in given if name not in known]
    if lacking or unknown:
        parts = [f"without {few(lacking)}"] if lacking else []
        parts += [f"with {few(unknown)}, unknown to the run"] if unknown else []
        raise DataError(f"{where}: other classes than those of {folder}: {'; '.join(parts)}")
    for place, (here, there) in enumerate(zip(given, known, strict=True)):
        if here != there:
            raise DataError(
                f"{where}: the classes of {folder} in another order: "
                f"number {place} is '{here}', in the run '{there}'"
            )
    size = files.read_json(folder / record.ENVIRONMENT)["data"]["image_size"]
    if data.image_size != size:
        raise DataError(
            f"{where}: images of {data.image_size} pixels, but {folder} was trained on {size}: "
            "resize them"
        )


@dataclass(frozen=True)
class Images:
    """What a run's folder says of the images that its network takes; `Dataset` has the same."""

    classes: tuple[str, ...]
    image_size: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def images(folder: Path) -> Images:
    """What the run in `folder` was trained on, without the data itself. Raises DiskError."""
    data = files.read_json(folder / record.ENVIRONMENT)["data"]
    return Images(
        classes=tuple(files.read_json(folder / record.CLASSES)),
        image_size=data["image_size"],
        mean=np.array(data["mean"]),
        std=np.array(data["std"]),
    )


def weights(folder: Path) -> bytes:
    """The final weights of the run in `folder`, as they were written. Raises DiskError."""
    path = folder / record.WEIGHTS
    content = files.read_bytes(path)
    # Runs of before it was kept have none.
    summary = folder / record.SUMMARY
    known = files.read_json(summary).get("weights_sha256") if summary.is_file() else None
    if known not in (None, files.sha256_bytes(content)):
        raise DiskError(f"cannot read {path}: its checksum does not hold")
    return content


def network(folder: Path, machine: Machine) -> nn.Module:
    """The run's network with its final weights, in eval mode, on the machine's device.

    The run's folder is all that is needed. Raises DiskError if the weights are missing or damaged.
    """
    model = build(book.find(str(folder / record.RECIPE)).model, images(folder), seed=0)
    path = folder / record.WEIGHTS
    try:
        model.load_state_dict(load(weights(folder)))
    except (SafetensorError, RuntimeError) as error:
        raise DiskError(f"cannot read {path}: not the weights of this run") from error
    model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()
