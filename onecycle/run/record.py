"""The run folder: what is in it, and the journal that all its tables come from."""

import csv
import io
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onecycle import files
from onecycle.errors import DiskError, RecipeError

RECIPE, ENVIRONMENT, CLASSES = "recipe.json", "environment.json", "classes.json"
SPLIT = "split.csv"  # each image's part, where the test part was drawn
EVENTS, METRICS, SUMMARY = "events.jsonl", "metrics.csv", "summary.json"
WEIGHTS, CHECKPOINTS, CURVES = "model.safetensors", "checkpoints", "curves.png"
LR_TABLE, LR_PLOT, LR_FOUND = "lr_find.csv", "lr_find.png", "lr_find.json"
LR_STEERED = "lr_steered.csv"
ABLATION, ABLATION_ASKED = "ablation.json", "asked.json"
SEEDS = "seeds.json"  # in a folder that holds a run for each of several seeds
EVALUATION, EVALUATION_FILE = "evaluation", "evaluation.json"
GALLERY, LABEL_ERRORS = "gallery", "label_errors"
TENSORBOARD = "tensorboard"


def new_folder(recipe_name: str, out: Path | None) -> Path:
    """A folder for a new run: `out`, or the first free `runs/<recipe>-<n>`.

    Raises RecipeError if `out` is something already, DiskError if it can't be made.
    """
    if out is not None:
        with files.disk_errors(out, "use the folder"):
            if out.exists() and not out.is_dir():
                raise RecipeError(f"--out {out} is a file: name a folder")
        try:
            check_empty(files.make_folder(out))
        except RecipeError:
            if (out / files.LOCK_NAME).is_file():
                files.FolderLock(out).release()  # if it can't be had, that names who has it
            raise
        return out
    runs = files.make_folder(Path("runs"))
    taken = [re.fullmatch(rf"{re.escape(recipe_name)}-(\d+)", p.name) for p in runs.iterdir()]
    number = max((int(match[1]) for match in taken if match), default=0) + 1
    while True:
        folder = runs / f"{recipe_name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run was quicker
            number += 1
            continue
        except OSError as error:
            raise DiskError(f"cannot make the folder {folder}: {error.strerror}") from error
        return folder


def check_empty(out: Path) -> None:
    """RecipeError if there is anything in `out` but its lock."""
    with files.disk_errors(out, "read"):
        if any(path.name != files.LOCK_NAME for path in out.iterdir()):
            raise RecipeError(
                f"--out {out} is not empty: choose another, or go on with --resume {out}"
            )


def forget_unsaved(out: Path) -> None:
    """Remove from `out` what a run left that died before its first save, if nothing else is there.

    Raises DiskError, also if somebody writes there.
    """
    begun = {RECIPE, ENVIRONMENT, CLASSES, SPLIT, EVENTS, CHECKPOINTS, TENSORBOARD}
    if not (out / RECIPE).is_file():
        return
    lock = files.FolderLock(out)
    try:
        files.clear_temporary(out)
        with files.disk_errors(out, "clear"):
            left = [path for path in out.iterdir() if path.name != files.LOCK_NAME]
            saved = any((out / CHECKPOINTS).glob("*.json"))
            if not saved and {path.name for path in left} <= begun:
                for path in left:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        lock.release()


def newest_unfinished(runs: Path) -> Path:
    """The folder of the run under `runs` that was written to last, of those not finished.

    Raises RecipeError if there is none.
    """
    with files.disk_errors(runs, "read"):
        found = [
            (max((p.stat().st_mtime_ns for p in folder.rglob(EVENTS)), default=0), folder)
            for folder in (runs.iterdir() if runs.is_dir() else ())
            if (folder / ENVIRONMENT).is_file() or (folder / SEEDS).is_file()
            if not (folder / SUMMARY).exists()
        ]
    if not found:
        raise RecipeError(f"--resume: no unfinished run is in {runs.resolve()}: name its folder")
    return max(found)[1]


class Journal:
    """`events.jsonl`: a line of JSON for each thing that happened, in order.

    The tables of a run are derived from it: `epochs` holds the finished epochs' rows, and
    `train_figures` the running figures of an epoch, also after a run went on from a checkpoint.
    """

    def __init__(self, folder: Path | None, keep_bytes: int) -> None:
        """Open the journal of `folder`, cut to its first `keep_bytes`. Raises DiskError.

        Without a folder it is kept nowhere: of several processes one writes.

        What lies past the checkpoint that a run goes on from is cut, so that the journal agrees
        with the weights; `cut` counts these lines, a last one that is not whole included.
        """
        self.path = folder / EVENTS if folder else Path(tempfile.gettempdir())
        self.epochs: list[dict[str, Any]] = []
        self.cut = 0
        self._sums: dict[int, list[float]] = {}  # epoch -> loss times images, correct, images
        self._size = keep_bytes if folder else 0
        with files.disk_errors(self.path, "write"):
            # Held open for the run, and without a buffer that could hold back part of a line.
            self._file: IO[bytes] = (
                open(self.path, "a+b", buffering=0)  # noqa: SIM115
                if folder
                else tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            )
        try:
            self._take_up()
        except DiskError:
            self._file.close()
            raise

    def _take_up(self) -> None:
        """Read the lines that are kept, and cut the others off."""
        with files.disk_errors(self.path, "read"):
            self._file.seek(0)
            content = self._file.read()
        kept, rest = content[: self._size], content[self._size :]
        self.cut = len(rest.splitlines())
        if len(kept) < self._size or (kept and not kept.endswith(b"\n")):
            raise DiskError(f"cannot read {self.path}: it is shorter than when it was last saved")
        try:
            for line in kept.splitlines():
                self._note(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DiskError(f"cannot read {self.path}: it is damaged") from error
        with files.disk_errors(self.path, "write"):
            self._file.truncate(self._size)

    def write(self, event: str, **fields: Any) -> None:
        """Append a line, whole or not at all. Raises DiskError."""
        row = {"event": event, **fields}
        line = json.dumps(row).encode() + b"\n"
        with files.disk_errors(self.path, "write"):
            try:
                done = 0
                while done < len(line):
                    done += self._file.write(line[done:])
            except OSError:
                self._file.truncate(self._size)
                raise
        self._size += len(line)
        self._note(row)

    def make_durable(self) -> int:
        """Force the lines onto the disk; their size in bytes."""
        with files.disk_errors(self.path, "write"):
            os.fsync(self._file.fileno())
            return self._size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def train_figures(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy over the images trained on so far in `epoch` (from 0)."""
        loss, correct, images = self._sums[epoch]
        return loss / images, correct / images

    def _note(self, row: dict[str, Any]) -> None:
        if row["event"] == "step":
            sums = self._sums.setdefault(row["epoch"], [0.0, 0.0, 0.0])
            for i, value in enumerate((row["loss"] * row["images"], row["correct"], row["images"])):
                sums[i] += value
        elif row["event"] == "epoch":
            self.epochs.append({k: v for k, v in row.items() if k != "event"})


def read_journal(folder: Path) -> tuple[int, int]:
    """Lines and bytes of the journal in `folder`. Raises DiskError if a line is not whole."""
    path = folder / EVENTS
    content = files.read_bytes(path)
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            whole = "event" in json.loads(line)
        except (ValueError, TypeError, RecursionError):
            whole = False
        if not whole or (number == len(lines) and not content.endswith(b"\n")):
            raise DiskError(f"cannot read {path}: line {number} is not whole")
    return len(lines), len(content)


def write_metrics(folder: Path, journal: Journal) -> None:
    """`metrics.csv`: a row an epoch."""
    write_table(folder / METRICS, journal.epochs)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, a number in each column."""
    return read_table(folder / METRICS)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write `rows`, which have the same keys, as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_bytes(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV that has a number in each column."""
    with files.disk_errors(path, "read"):
        text = path.read_text()
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


def write_predictions(
    folder: Path, part: str, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    """Write `<part>_labels.npy` (N,), then `<part>_probabilities.npy` (N, classes)."""
    write_array(folder / f"{part}_labels.npy", labels)
    write_array(folder / f"{part}_probabilities.npy", probabilities)


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write `values` to `path` atomically as .npy."""
    content = io.BytesIO()
    np.save(content, values)
    files.write_bytes(path, content.getvalue())


def has_predictions(folder: Path, part: str) -> bool:
    """Whether `write_predictions` was done in `folder`."""
    return (folder / f"{part}_probabilities.npy").is_file()


def read_predictions(folder: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities and labels as written; DiskError if they are missing or damaged."""
    paths = [folder / f"{part}_{name}.npy" for name in ("probabilities", "labels")]
    probabilities, labels = (_read_array(path) for path in paths)
    if probabilities.shape[:1] != labels.shape:
        raise DiskError(f"cannot read {paths[0]}: it does not go with {paths[1].name}")
    return probabilities, labels


def _read_array(path: Path) -> NDArray[Any]:
    try:
        with files.disk_errors(path, "read"), open(path, "rb") as file:
            # Reads an array and nothing else that `np.load` would.
            loaded: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise DiskError(f"cannot read {path}: no whole array ({error})") from error
    return loaded
