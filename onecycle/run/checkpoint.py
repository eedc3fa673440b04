"""Whole checkpoints: safetensors and JSON with checksums, written atomically, two of them kept."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from onecycle import files
from onecycle.errors import DiskError, OnecycleError
from onecycle.run.record import CHECKPOINTS
from onecycle.training.state import TrainState

KEPT = 2
COST = 0.01  # share of the time that saving may take
CHECKSUM = "sha256_of_this"


@dataclass(frozen=True)
class Checkpoint:
    """A state read back, what else was saved with it, and the damaged ones passed over."""

    tensors: dict[str, Tensor]
    step: int
    extra: dict[str, Any]
    damaged: list[str]


class Saver:
    """Writes checkpoints, as often as keeps their measured cost under one per cent."""

    def __init__(self, run: Path) -> None:
        self.folder = files.make_folder(run / CHECKPOINTS)
        self._due = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last save to pay for another."""
        return time.monotonic() >= self._due

    def save(self, state: TrainState, extra: dict[str, Any]) -> float:
        """Save `state` and `extra` (plain values); the seconds it took. Raises DiskError."""
        start = time.monotonic()
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors().items()}
        content = save(tensors)
        name = f"step-{state.step:08d}"
        files.write_bytes(self.folder / f"{name}.safetensors", content)
        meta = {"step": state.step, "sha256": files.sha256_bytes(content), **extra}
        # The JSON is written last: a checkpoint without it was never finished.
        files.write_json(self.folder / f"{name}.json", {**meta, CHECKSUM: _checksum(meta)})
        self._drop_old()
        seconds = time.monotonic() - start
        self._due = time.monotonic() + seconds / COST
        return seconds

    def _drop_old(self) -> None:
        with files.disk_errors(self.folder, "clear"):
            for meta in sorted(self.folder.glob("step-*.json"))[:-KEPT]:
                meta.unlink()
            for tensors in self.folder.glob("step-*.safetensors"):
                if not tensors.with_suffix(".json").exists():
                    tensors.unlink()


def has_checkpoint(run: Path) -> bool:
    """Whether `run` has been saved at least once."""
    return any((run / CHECKPOINTS).glob("step-*.json"))


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint of `run` whose checksums hold.

    Raises OnecycleError if there is none, naming the damaged ones.
    """
    damaged: list[str] = []
    for meta in sorted((run / CHECKPOINTS).glob("step-*.json"), reverse=True):
        try:
            return _read(meta, damaged)
        except (DiskError, ValueError, SafetensorError) as error:
            damaged.append(f"{meta.name}: {error}")
    found = f"; damaged: {'; '.join(damaged)}" if damaged else ""
    raise OnecycleError(f"{run} has no checkpoint to go on from{found}; start a new run")


def _read(path: Path, damaged: list[str]) -> Checkpoint:
    meta = files.read_json(path)
    if not isinstance(meta, dict) or meta.pop(CHECKSUM, None) != _checksum(meta):
        raise ValueError("its checksum does not hold")
    tensors = path.with_suffix(".safetensors")
    with files.disk_errors(tensors, "read"):
        content = tensors.read_bytes()
    if files.sha256_bytes(content) != meta.pop("sha256"):
        raise ValueError(f"the checksum of {tensors.name} does not hold")
    return Checkpoint(load(content), meta.pop("step"), meta, damaged)


def _checksum(meta: dict[str, Any]) -> str:
    return files.sha256_bytes(json.dumps(meta, sort_keys=True).encode())
