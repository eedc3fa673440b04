"""Whole checkpoints: safetensors and JSON with checksums, written atomically, two of them kept."""

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from onecycle import files
from onecycle.errors import DiskError, DivergedError, OnecycleError, RecipeError
from onecycle.run.record import CHECKPOINTS
from onecycle.training.state import TrainState

KEPT = 2
COST = 0.01  # share of the time that saving may take
CHECKSUM = "sha256_of_this"
# What is saved beside the state's own facts, and read back only if it is that.
EXTRA: dict[str, type | tuple[type, ...]] = {
    "recipe_digest": str,
    "data_digest": str,
    "journal_bytes": int,
    "seconds": (int, float),
    "train_seconds": (int, float),
}
STATES = 3  # weights and at most two moments of each
SPARE = 16_000_000  # bytes of a run's tables, pictures and journal


@dataclass(frozen=True)
class Checkpoint:
    """A state read back, what else was saved with it, and the damaged ones passed over."""

    tensors: dict[str, Tensor]
    step: int
    extra: dict[str, Any]
    damaged: list[str]


@dataclass(frozen=True)
class Every:
    """How often to save: after so many steps, or so many seconds."""

    steps: int | None = None
    seconds: float | None = None


def every(text: str, steps_per_epoch: int = 1) -> Every:
    """What `--save-every` says, as `100steps`, `2epochs`, `90s` or `5min`. Raises RecipeError."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?) ?(s|(step|epoch|min)s?)", text.strip())
    number = float(found[1]) if found else 0.0
    if not found or not number or (found[3] == "step" and number % 1):
        raise RecipeError(
            f"--save-every {text}: give a number and its unit, as 100steps, 2epochs, 90s or 5min"
        )
    if found[2] == "s" or found[3] == "min":
        return Every(seconds=number * (1 if found[2] == "s" else 60))
    return Every(steps=max(1, round(number * (steps_per_epoch if found[3] == "epoch" else 1))))


class Saver:
    """Writes checkpoints, by default as often as keeps their measured cost under one per cent."""

    def __init__(self, run: Path, often: Every | None = None, sound: Iterable[int] = ()) -> None:
        """`often` is when to save; `sound` are the steps of checkpoints known to be whole.

        What a killed process left half written is removed.
        """
        self.folder = files.make_folder(run / CHECKPOINTS)
        for folder in (run, self.folder):
            files.clear_temporary(folder)
        self.often = often or Every()
        self.kept = list(sound)
        self._due = time.monotonic() + (self.often.seconds or 0)

    def due(self, step: int) -> bool:
        """Whether it is time to save, after `step`."""
        if self.often.steps:
            return step % self.often.steps == 0
        return time.monotonic() >= self._due

    def check_space(self, state: TrainState) -> None:
        """DiskError if the disk has no room for what is still to come of a run's files."""
        weights = sum(p.numel() * p.element_size() for p in state.model.state_dict().values())
        there = files.size(self.folder.parent)
        each = STATES * weights
        files.check_space(self.folder, max(each, (KEPT + 1) * each + SPARE - there))

    def save(self, state: TrainState, extra: dict[str, Any]) -> float:
        """Save `state` and `extra` (plain values); the seconds it took.

        Raises DiskError, and DivergedError for a state that is not finite: it is never saved.
        """
        start = time.monotonic()
        tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors().items()}
        if bad := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
            raise DivergedError(
                f"{bad[0]} is no longer finite after step {state.step}: start anew with a lower "
                f"--lr; {self.last()}"
            )
        content = save(tensors)
        name = _name(state.step)
        files.write_bytes(self.folder / f"{name}.safetensors", content)
        meta = {"step": state.step, "sha256": files.sha256_bytes(content), **extra}
        # The JSON is written last: a checkpoint without it was never finished.
        files.write_json(self.folder / f"{name}.json", {**meta, CHECKSUM: _checksum(meta)})
        self.kept = [*(step for step in self.kept if step != state.step), state.step][-KEPT:]
        self._drop_others()
        seconds = time.monotonic() - start
        self._due = time.monotonic() + (self.often.seconds or seconds / COST)
        return seconds

    def last(self) -> str:
        """Where the newest checkpoint is, in words."""
        if not self.kept:
            return "nothing was saved"
        return f"the last checkpoint is {self.folder / _name(self.kept[-1])}.safetensors"

    def _drop_others(self) -> None:
        """Remove what is not among the newest whole checkpoints, damaged ones included."""
        names = {_name(step) for step in self.kept}
        with files.disk_errors(self.folder, "clear"):
            # The JSON first: without it the tensors count for nothing.
            for pattern in ("step-*.json", "step-*.safetensors"):
                for path in self.folder.glob(pattern):
                    if path.stem not in names:
                        path.unlink()


def has_checkpoint(run: Path) -> bool:
    """Whether `run` has been saved at least once."""
    return any((run / CHECKPOINTS).glob("step-*.json"))


def newest(run: Path) -> Checkpoint:
    """The newest checkpoint of `run` whose checksums hold; its content says which is newer.

    Raises OnecycleError if there is none, naming the damaged ones.
    """
    metas, damaged = read_all(run)
    for path, meta in sorted(metas, key=lambda found: -found[1]["step"]):
        try:
            return Checkpoint(_tensors(path, meta["sha256"]), meta["step"], meta, damaged)
        except (DiskError, ValueError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
    found = f"; damaged: {'; '.join(damaged)}" if damaged else ""
    raise OnecycleError(f"{run} has no checkpoint to go on from{found}; start a new run")


def check_all(run: Path) -> tuple[list[int], list[str]]:
    """The steps of the checkpoints of `run` that are whole, and what is wrong with the others."""
    metas, damaged = read_all(run)
    sound = []
    for path, meta in metas:
        try:
            _tensors(path, meta["sha256"])
            sound.append(int(meta["step"]))
        except (DiskError, ValueError, SafetensorError) as error:
            damaged.append(f"{path.name}: {error}")
    return sorted(sound), damaged


def read_all(run: Path) -> tuple[list[tuple[Path, dict[str, Any]]], list[str]]:
    """The JSON of each checkpoint that is as it was written, and what is wrong with the others."""
    found, damaged = [], []
    for path in sorted((run / CHECKPOINTS).glob("step-*.json")):
        try:
            found.append((path, _meta(path)))
        except (DiskError, ValueError) as error:
            damaged.append(f"{path.name}: {error}")
    return found, damaged


def _meta(path: Path) -> dict[str, Any]:
    content = files.read_bytes(path)
    meta: Any = files.parse_json(path, content)
    # Byte for byte, so that no change at all goes unseen.
    if not isinstance(meta, dict) or files.json_bytes(meta) != content:
        raise ValueError("its checksum does not hold")
    if meta.pop(CHECKSUM, None) != _checksum(meta):
        raise ValueError("its checksum does not hold")
    fields = {"step": int, "sha256": str, **EXTRA}
    if not all(isinstance(meta.get(key), kind) for key, kind in fields.items()):
        raise ValueError("it is not what onecycle writes")
    if path.stem != _name(meta["step"]):
        raise ValueError(f"it is the checkpoint of step {meta['step']}, under another name")
    return meta


def _tensors(meta: Path, sha256: str) -> dict[str, Tensor]:
    path = meta.with_suffix(".safetensors")
    content = files.read_bytes(path)
    if files.sha256_bytes(content) != sha256:
        raise ValueError(f"the checksum of {path.name} does not hold")
    return load(content)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _checksum(meta: dict[str, Any]) -> str:
    return files.sha256_bytes(files.json_bytes(meta))
