"""Evaluation as a Python function: every figure of a run's predictions, kept in its folder."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onecycle import files, machine, progress
from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.load import kind
from onecycle.datasets.load import load as load_data
from onecycle.errors import RecipeError, did_you_mean
from onecycle.evaluation.judge import judge
from onecycle.evaluation.likelihood import Labels, Probabilities
from onecycle.evaluation.predict import probabilities
from onecycle.evaluation.views import VIEWS, describe
from onecycle.reporting import evaluation_plots, evaluation_tables, plots
from onecycle.run import record, reopen

TABLES = {
    "per_class.csv": evaluation_tables.per_class,
    "confusion.csv": evaluation_tables.confusion,
    "confusion_shares.csv": evaluation_tables.confusion_shares,
}
PICTURES = {
    "confusion.png": evaluation_plots.confusion,
    "reliability.png": evaluation_plots.reliability,
    "per_class.png": evaluation_plots.per_class,
}


@dataclass(frozen=True)
class Evaluation:
    """What a run's final weights are worth on some images.

    `figures` is what `evaluation.json` in the folder `path` holds: accuracy, top5_accuracy, loss,
    classes (support, recall, precision, f1), confusion, most_confused, calibration; proportions
    are fractions with their 95 % Wilson intervals, and `tta` says what the images were seen as.
    """

    path: Path
    figures: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction."""
        return float(self.figures["accuracy"])

    def confusion(self) -> Figure:
        """The confusion matrix."""
        return evaluation_plots.confusion(self.figures)

    def reliability(self) -> Figure:
        """Accuracy against confidence."""
        return evaluation_plots.reliability(self.figures)

    def per_class(self) -> Figure:
        """Accuracy of each class with its interval."""
        return evaluation_plots.per_class(self.figures)


def evaluate(
    run: str | PathLike[str],
    data: str | Path | None = None,
    *,
    tta: str = "none",
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Judge the final weights of a finished run, and write the result into its folder.

    The images are those of the run's own test part, or of the test part of other `data` with the
    same classes and image size. `tta` is none, flip (an image and its mirror image) or crop (six
    views). What isn't predicted yet is predicted in fp32, once, and kept beside the figures.

    Raises RecipeError for a run that is missing or not finished, DataError, DiskError.
    """
    evaluation = assess(run, data, tta, device, threads, quiet)
    files.make_folder(evaluation.path)
    for name, table in TABLES.items():
        files.write_bytes(evaluation.path / name, table(evaluation.figures))
    for name, picture in PICTURES.items():
        plots.save(picture(evaluation.figures), evaluation.path / name)
    files.write_json(evaluation.path / record.EVALUATION_FILE, evaluation.figures)
    return evaluation


def assess(
    run: str | PathLike[str],
    data: str | Path | None = None,
    tta: str = "none",
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = True,
) -> Evaluation:
    """What `evaluate` gives, without tables and pictures written."""
    folder = reopen.finished(run)
    if tta not in VIEWS:
        raise RecipeError(f"--tta {tta}: choose {', '.join(VIEWS)}{did_you_mean(tta, VIEWS)}")
    show = progress.Show(quiet)
    where = machine.choose(device, "fp32", threads)
    predictions = _Predictions(folder, tta, where, show)
    summary = files.read_json(folder / record.SUMMARY)
    other = None if data is None else _other(folder, data, show)
    if other is None or other.digest == summary["data_digest"]:
        name, digest, place = summary["data"], summary["data_digest"], "test"
        judged = predictions.own("test")
    else:
        name, digest, place = other.name, other.digest, f"data-{other.digest[:16]}"
        judged = predictions.other(other, place)
    validation = None
    if record.has_predictions(folder, "val"):
        validation = predictions.own("val")
    figures = {
        "data": name,
        "data_digest": digest,
        "part": "test",
        "tta": tta,
        "tta_note": describe(tta),
        **judge(*judged, tuple(files.read_json(folder / record.CLASSES)), validation),
    }
    return Evaluation(predictions.place(place), figures)


def _other(folder: Path, data: str | Path, show: progress.Show) -> Dataset:
    """The data set `data`, its pictures brought to the size that the run in `folder` takes."""
    size = reopen.images(folder).image_size if kind(data) == "pictures" else None
    return load_data(data, show.decoded, show.downloaded, image_size=size)


@dataclass(frozen=True)
class _Predictions:
    """Predictions of the run in `folder`: those that it kept, and others made once."""

    folder: Path
    tta: str
    where: machine.Machine
    show: progress.Show

    def place(self, name: str) -> Path:
        """The folder for predictions of the images called `name`, and figures about them."""
        ending = "" if self.tta == "none" else f"-{self.tta}"
        return self.folder / record.EVALUATION / (name + ending)

    def own(self, part: str) -> tuple[Probabilities, Labels]:
        """Probabilities and labels of the run's own part `test` or `val`."""
        if self.tta == "none":
            return record.read_predictions(self.folder, part)
        place = self.place("test")
        if record.has_predictions(place, part):
            return record.read_predictions(place, part)
        digest = files.read_json(self.folder / record.SUMMARY)["data_digest"]
        data = reopen.dataset(self.folder, digest, self.show.decoded, self.show.downloaded)
        return self._make(data, part, place)

    def other(self, data: Dataset, name: str) -> tuple[Probabilities, Labels]:
        """Those of the test part of other data. Raises DataError if it doesn't fit the run."""
        reopen.check_fits(self.folder, data)
        place = self.place(name)
        if record.has_predictions(place, "test"):
            return record.read_predictions(place, "test")
        return self._make(data, "test", place)

    def _make(self, data: Dataset, part: str, place: Path) -> tuple[Probabilities, Labels]:
        split: Split = getattr(data, part)
        how = f"on {self.where.device}, {describe(self.tta)}"
        self.show.note(f"predicting {len(split):,} {part} images {how}")
        model = reopen.network(self.folder, self.where)
        made = probabilities(model, split, self.where, self.tta)
        record.write_predictions(files.make_folder(place), part, made, split.labels)
        return made, split.labels
