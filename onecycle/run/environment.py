"""What a run is trained on and with: written before its first step, compared when it goes on."""

import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from onecycle import files, machine
from onecycle.datasets import facts
from onecycle.datasets.dataset import Dataset
from onecycle.machine import Machine
from onecycle.ranks import Ranks
from onecycle.recipe.schema import Recipe
from onecycle.run import record
from onecycle.run.checkpoint import Checkpoint
from onecycle.run.job import Job

IF_INSTALLED = ("kornia", "albumentations")
VERSIONS = ("onecycle", "torch", "numpy", "numba", "pillow", "scikit-learn", "safetensors")


def describe(
    job: Job, val_fraction: float = 0.0, skip_bad: bool = False, image_size: int | None = None
) -> None:
    """Write what the run is, before its first step."""
    data: Dataset = job.dataset
    files.write_json(
        job.folder / record.RECIPE,
        {"digest": job.recipe.digest(), "recipe": job.recipe.to_dict()},
    )
    files.write_json(job.folder / record.CLASSES, list(data.classes))
    if data.drawn:
        record.write_table(job.folder / record.SPLIT, facts.listing(data))
    files.write_json(
        job.folder / record.ENVIRONMENT,
        {
            "data": data_facts(data) | {"skip_bad": skip_bad, "image_size_asked": image_size},
            "seed": job.seed,
            "epochs": job.recipe.sized(len(data.train)).epochs,
            "val_fraction": val_fraction,
            "save_every": job.save_every,
            "track": job.track,
            "init": job.init.source if job.init else None,
            "augment_backend": job.augment_backend,
            "max_memory": job.max_memory,
            **surroundings(job.machine, job.ranks),
        },
    )


def data_facts(data: Dataset) -> dict[str, Any]:
    """What a run is trained and tested on."""
    return {
        "name": data.name,
        "source": data.source,
        "digest": data.digest,
        "train": len(data.train),
        "val": len(data.val) if data.val else 0,
        "test": len(data.test),
        "image_size": data.image_size,
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "skipped": data.skipped,
        "drawn": data.drawn,
        "notes": data.notes,
    }


def surroundings(where: Machine, ranks: Ranks) -> dict[str, Any]:
    """What a run is trained on and with."""
    return {
        "machine": where.to_dict(),
        "processes": ranks.world,
        "hardware": machine.device_name(where.device),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in VERSIONS}
        | {name: metadata.version(name) for name in IF_INSTALLED if find_spec(name)},
    }


def changed(
    made: dict[str, Any], checkpoint: Checkpoint, recipe: Recipe, where: Machine, ranks: Ranks
) -> list[str]:
    """What is no longer as the run in `made` had it, of all that decides its bits but the data."""
    now = surroundings(where, ranks)
    found = []
    if recipe.digest() != checkpoint.extra["recipe_digest"]:
        found.append(f"its {record.RECIPE} is not the recipe that was saved")
    if (threads := made["machine"]["threads"]) != where.threads:
        found.append(f"it was trained with {threads} threads, not {where.threads}")
    if (world := made.get("processes", 1)) != ranks.world:
        found.append(f"it was trained by {world} processes, not {ranks.world}")
    if (hardware := made.get("hardware", now["hardware"])) != now["hardware"]:
        found.append(f"it was trained on {hardware}, not {now['hardware']}")
    for name in deciding(recipe, made.get("augment_backend", "own"), where.device):
        then, here = (each["versions"].get(name, "none") for each in (made, now))
        if then != here:
            found.append(f"it was trained with {name} {then}, not {here}")
    return found


def deciding(recipe: Recipe, augment_backend: str, device: str) -> list[str]:
    """The libraries whose versions decide the bits of a run."""
    used = {
        "torch": True,
        "numpy": True,  # it draws the order of the images and their augmentation
        "numba": device == "cpu",  # it compiles what follows a convolution
        "kornia": recipe.augment.policy != "none" or recipe.augment.colour > 0,
        "albumentations": augment_backend == "albumentations",
    }
    return [name for name, is_used in used.items() if is_used]
