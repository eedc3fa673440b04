"""Export as a Python function: a finished run as one file that other programs can use."""

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from onecycle import files, machine, progress
from onecycle.errors import RecipeError, did_you_mean
from onecycle.evaluation.views import VIEWS, describe
from onecycle.run import record
from onecycle.use import formats, proof
from onecycle.use.classifier import trained


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was seen of it before.

    `checked_on` names the images on which it was compared with the run, `largest_difference` is
    that of a probability. `latency` has milliseconds (medians) for batches of 1 and 64 images:
    those of the file, and of the run's own network in PyTorch.
    """

    path: Path
    format: str
    bytes: int
    checked_on: str
    largest_difference: float
    threads: int
    latency: dict[str, dict[str, float]]
    metadata: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self) | {"path": str(self.path)}


def export(
    run: str | PathLike[str],
    format: str = "onnx",
    out: str | Path | None = None,
    *,
    threads: int | None = None,
    quiet: bool = False,
) -> Exported:
    """Write a finished run as a file for other programs, after it was compared with the run.

    `format` is onnx (ONNX Runtime), pt2 (torch.export) or safetensors (the weights alone, with
    the recipe beside them); `out` a file, by default `RUN/export/model.FORMAT`. Pixels (N, S, S, 3)
    uint8 go in, probabilities (N, classes) come out, calibrated if the run has a validation part,
    without test-time augmentation; the metadata inside names classes and recipe.

    Raises RecipeError for a run that is missing or not finished or wrong arguments, OnecycleError
    if the file would say another class than the run, MissingExtraError, DiskError.
    """
    if format not in formats.FORMATS:
        near = did_you_mean(format, formats.FORMATS)
        raise RecipeError(f"--format {format}: choose {', '.join(formats.FORMATS)}{near}")
    where = machine.choose("cpu", "fp32", threads)
    use = trained(run, where)
    path = _place(use.folder, format, out)
    show = progress.Show(quiet)
    show.note(f"exporting {use.folder} to {path}; {use.calibration}")
    for tta in VIEWS:
        if (use.folder / record.EVALUATION / f"test-{tta}").is_dir():
            show.note(f"the run was also judged with {describe(tta)}; the file has one view")
    sample = proof.sample(use, show.decoded, show.downloaded)
    details = formats.metadata(use)
    content = formats.packed(use, format, details)
    predict = formats.runner(use, format, content, where.threads)
    show.note(f"checking on {sample.name}")
    difference = proof.largest_difference(predict, sample)
    latency = {
        name: {str(count): proof.milliseconds(each, sample, count) for count in (1, proof.TOGETHER)}
        for name, each in ((format, predict), ("pytorch", use.probabilities))
    }
    files.make_folder(path.parent)
    files.write_bytes(path, content)
    return Exported(
        path=path,
        format=format,
        bytes=len(content),
        checked_on=sample.name,
        largest_difference=difference,
        threads=where.threads,
        latency=latency,
        metadata=details,
    )


def _place(folder: Path, format: str, out: str | Path | None) -> Path:
    """Where to write; RecipeError for a folder, or a name that says another format."""
    if out is None:
        return folder / "export" / f"model.{format}"
    path = Path(out)
    with files.disk_errors(path, "write"):
        if path.is_dir():
            raise RecipeError(f"--out {out} is a folder: name a file")
    if path.suffix != f".{format}":
        raise RecipeError(f"--out {out}: the name of a {format} file ends in .{format}")
    return path
