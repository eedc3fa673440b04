"""Trained networks that come with the package: folders like a finished run's, a few MB each."""

import re
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from onecycle import files
from onecycle.errors import OnecycleError, RecipeError, did_you_mean
from onecycle.run import record, reopen

FOLDER = Path(__file__).parent.parent / "pretrained"
CARD = "card.md"
# What a run's temperature is fitted on comes along; all else can be made without the run.
COPIED = (record.RECIPE, record.CLASSES, "val_probabilities.npy", "val_labels.npy")
OF_DATA = ("name", "digest", "train", "val", "test", "image_size", "mean", "std")


def names() -> list[str]:
    """The networks that there are."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{record.ENVIRONMENT}"))


def shipped(name: str, option: str) -> Path:
    """The folder of the network `name`. RecipeError, which names `option`, if there is none."""
    if name not in names():
        known = f"there are {', '.join(names())}" if names() else "none come with this version"
        raise RecipeError(f"{option} {name}: no such network: {known}{did_you_mean(name, names())}")
    return FOLDER / name


def run_or_shipped(given: str | PathLike[str], option: str) -> Path:
    """The folder of a run, or of the network of that name. RecipeError if it is neither."""
    with files.disk_errors(Path(given), "read"):
        if (Path(given) / record.ENVIRONMENT).is_file():
            return reopen.finished(given).resolve()
    if re.fullmatch(r"[\w-]+", str(given)) and str(given) in names():
        return shipped(str(given), option)
    known = f", and no network of that name ({', '.join(names())})" if names() else ""
    raise RecipeError(f"{option} {given}: no run is there (no {record.ENVIRONMENT}){known}")


def chosen(run: str | PathLike[str] | None, pretrained: str | None) -> Path:
    """The folder of the one of the two that is given. RecipeError if none is, or both."""
    if (run is None) == (pretrained is None):
        raise RecipeError("give either a run or --pretrained NAME")
    return reopen.finished(run) if run is not None else shipped(str(pretrained), "--pretrained")


def pack(run: str | PathLike[str], name: str, card: str) -> Path:
    """Put what using the finished run `run` takes into the package as `name`; the folder.

    Kernels and matrices are kept in fp16, half as large, and computed with in fp32; `card` is the
    model card. Nothing of the machine that trained it is kept but the versions. Raises RecipeError,
    DiskError, OnecycleError.
    """
    source = reopen.finished(run)
    if not re.fullmatch(r"[a-z0-9-]+", name) or name in names():
        raise RecipeError(f"{name}: give a new name of small letters, digits and -")
    made = files.read_json(source / record.ENVIRONMENT)
    kept = {key: made[key] for key in ("seed", "val_fraction", "versions")}
    kept["data"] = {key: made["data"][key] for key in OF_DATA} | {"source": made["data"]["name"]}
    folder = files.make_folder(FOLDER / name)
    weights = _halved(reopen.weights(source))
    files.write_bytes(folder / record.WEIGHTS, weights)
    for file in COPIED:
        if (source / file).is_file():
            files.write_bytes(folder / file, files.read_bytes(source / file))
    told = {"run": name, "weights_sha256": files.sha256_bytes(weights)}
    files.write_json(folder / record.SUMMARY, files.read_json(source / record.SUMMARY) | told)
    files.write_bytes(folder / CARD, card.encode())
    files.write_json(folder / record.ENVIRONMENT, kept)  # last: without it there is no network
    return folder


def _halved(content: bytes) -> bytes:
    """A safetensors file with its fp32 matrices in fp16. OnecycleError if one doesn't fit."""
    weights = load(content)
    for key, value in weights.items():
        if value.dtype == torch.float32 and value.ndim > 1:  # the others weigh nothing
            weights[key] = value.half()
            if not np.isfinite(weights[key].numpy()).all():
                raise OnecycleError(f"{key}: {value.abs().max():.3g} is too large for fp16")
    return save(weights)
