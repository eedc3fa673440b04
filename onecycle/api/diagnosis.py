"""What this machine and a run are good for, looked at line by line."""

import os
import platform
import re
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from os import PathLike
from pathlib import Path

import torch

from onecycle import files, machine
from onecycle.datasets import cache
from onecycle.datasets.load import located
from onecycle.errors import OnecycleError
from onecycle.recipe import book
from onecycle.run import checkpoint, environment, record, reopen

FEW_BYTES = 1e9  # a disk with less free than that is worth a warning


@dataclass(frozen=True)
class Line:
    """A thing that was looked at, what it was found to be, and whether that is well."""

    name: str
    found: str
    ok: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """All lines; `ok` if each of them is well."""

    lines: tuple[Line, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(line.ok for line in self.lines)

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return {"ok": self.ok, "lines": [asdict(line) for line in self.lines]}

    def __str__(self) -> str:
        width = max(len(line.name) for line in self.lines) + 2
        return "\n".join(
            f"{'  ' if line.ok else '! '}{line.name:<{width}}{line.found}" for line in self.lines
        )


def doctor(run: str | PathLike[str] | None = None) -> Diagnosis:
    """Look at the machine, its disks, the data and the extras, and at the run in the folder `run`.

    What is not there but not needed either (data to be downloaded, an extra) is well; of a run
    every checksum must hold, its recipe be the one that was saved, and its journal whole. Raises
    RecipeError if there is no run in `run`.
    """
    if run is not None:
        reopen.begun(run)
    lines = [*_machine(), *_disks(), *_data(), *_extras()]
    return Diagnosis((*lines, *(_run(Path(run)) if run is not None else ())))


def _machine() -> list[Line]:
    threads = torch.get_num_threads()
    try:
        found = machine.choose()
    finally:
        torch.set_num_threads(threads)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in environment.VERSIONS)
    return [
        Line("system", f"{platform.platform()}, Python {platform.python_version()}"),
        Line("versions", versions),
        Line("hardware", machine.device_name(found.device)),
        Line("computes on", found.describe()),
    ]


def _disks() -> list[Line]:
    places = {"working folder": Path.cwd(), "cache": cache.cache_folder()}
    return [_disk(name, place) for name, place in places.items()]


def _disk(name: str, place: Path) -> Line:
    """Room on the disk where `place` is, or will be made."""
    above = (place.absolute(), *place.absolute().parents)
    # os.path, because Path.exists raises where it may not look.
    there = next(p for p in above if os.path.exists(p))  # noqa: PTH110
    free = shutil.disk_usage(there).free
    said = f"{place}: {free / 1e9:,.1f} GB free"
    if not os.access(there, os.W_OK):
        return Line(name, f"{said}, but it can't be written: choose another", ok=False)
    if free < FEW_BYTES:
        return Line(name, f"{said}: make room", ok=False)
    return Line(name, said)


def _data() -> list[Line]:
    lines = []
    for name in ("cifar10", "cifar100"):
        try:
            found = located(name)
        except OnecycleError as error:  # ONECYCLE_DATA names something else, perhaps on purpose
            given = os.environ.get("ONECYCLE_DATA", "")
            lines.append(Line(name, str(error), ok=os.path.exists(given)))  # noqa: PTH110
            continue
        lines.append(Line(name, str(found) if found else "not here; downloaded when asked for"))
    return lines


def _extras() -> list[Line]:
    """Whether what each extra asks for is installed; that of the tests is for developers."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires("onecycle") or ():
        found = re.fullmatch(r"([\w.-]+(?:\[[\w-]+\])?).*extra == ['\"]([\w-]+)['\"]", line)
        if found and found[2] != "test":
            wanted.setdefault(found[2], []).append(found[1])
    for libraries in wanted.values():  # an extra may ask for another one
        for other in [each for each in libraries if each.startswith("onecycle[")]:
            libraries.remove(other)
            libraries += wanted[other.removeprefix("onecycle[").removesuffix("]")]
    return [_extra(name, libraries) for name, libraries in sorted(wanted.items())]


def _extra(name: str, libraries: list[str]) -> Line:
    try:
        versions = [f"{library} {metadata.version(library)}" for library in libraries]
    except metadata.PackageNotFoundError:
        return Line(f"[{name}]", f"pip install 'onecycle[{name}]'")
    return Line(f"[{name}]", ", ".join(versions))


def _run(folder: Path) -> list[Line]:
    finished = (folder / record.SUMMARY).is_file()
    state = "finished" if finished else f"go on with: onecycle train --resume {folder}"
    lines = [Line("run", f"{folder}: {state}"), _recipe(folder)]
    sound, damaged = checkpoint.check_all(folder)
    steps = ", ".join(str(step) for step in sound) or "none"
    lines.append(Line("checkpoints", f"whole at steps: {steps}", ok=bool(sound)))
    lines += [Line("checkpoint", each, ok=False) for each in damaged]
    lines.append(_journal(folder))
    if finished:
        lines += [_file(folder, name) for name in (record.SUMMARY, record.CLASSES)]
        lines.append(_weights(folder))
        lines.append(_predictions(folder))
    return lines


def _recipe(folder: Path) -> Line:
    try:
        written = files.read_json(folder / record.RECIPE)
        digest = book.find(str(folder / record.RECIPE)).digest()
        known = {meta["recipe_digest"] for _, meta in checkpoint.read_all(folder)[0]}
        known |= {written["digest"]} if "digest" in written else set()
    except (OnecycleError, TypeError) as error:
        return Line("recipe", str(error), ok=False)
    if known - {digest}:
        return Line("recipe", f"{record.RECIPE} is not the recipe that was trained", ok=False)
    return Line("recipe", digest)


def _journal(folder: Path) -> Line:
    """Whether the journal is whole lines, as many as the checkpoints know of."""
    try:
        lines, whole = record.read_journal(folder)
    except OnecycleError as error:
        return Line("journal", str(error), ok=False)
    known = [meta["journal_bytes"] for _, meta in checkpoint.read_all(folder)[0]]
    if whole < max(known, default=0):
        return Line("journal", f"{record.EVENTS} is shorter than when it was saved", ok=False)
    return Line("journal", f"{lines} whole lines")


def _file(folder: Path, name: str) -> Line:
    try:
        files.read_json(folder / name)
    except OnecycleError as error:
        return Line(name, str(error), ok=False)
    return Line(name, "whole")


def _weights(folder: Path) -> Line:
    try:
        reopen.weights(folder)
    except (OnecycleError, AttributeError) as error:  # a summary that is no table
        return Line("weights", str(error), ok=False)
    return Line("weights", "as they were written")


def _predictions(folder: Path) -> Line:
    try:
        made = files.read_json(folder / record.SUMMARY)
        predicted, labels = record.read_predictions(folder, "test")
        accuracy = float((predicted.argmax(axis=1) == labels).mean())
        agrees = abs(accuracy - made["test_accuracy"]) < 1e-9
    except (OnecycleError, KeyError, TypeError) as error:
        return Line("predictions", str(error), ok=False)
    said = "give the test accuracy of the summary"
    return Line("predictions", said if agrees else f"don't {said}", ok=agrees)
