"""Galleries as a Python function: images of a run's test part with what it took them for."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from onecycle import files, machine, progress
from onecycle.api.setup import check_seed
from onecycle.errors import RecipeError, did_you_mean
from onecycle.evaluation.cam import class_maps
from onecycle.evaluation.pick import ORDERS, SHOWN, pick
from onecycle.reporting import gallery as drawing
from onecycle.reporting import plots
from onecycle.reporting.gallery import PAGE, Picture
from onecycle.run import record, reopen


@dataclass(frozen=True)
class Gallery:
    """Pictures in order, a line on what they are, and the folder that `save` writes into."""

    pictures: tuple[Picture, ...]
    title: str
    path: Path

    def figures(self) -> list[Figure]:
        """A hundred pictures a page; one empty page if there are none."""
        starts = range(0, max(1, len(self.pictures)), PAGE)
        return [drawing.page(self.pictures[i : i + PAGE], self.title) for i in starts]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """index, name, actual, predicted, confidence, loss and label quality of each picture."""
        return drawing.rows(self.pictures)

    def save(self) -> None:
        """Write `gallery.csv`, `page-<n>.png` and, if there are maps, `maps.npy` (n, H, W)."""
        files.make_folder(self.path)
        files.write_bytes(self.path / "gallery.csv", drawing.listing(self.pictures))
        for number, figure in enumerate(self.figures(), start=1):
            plots.save(figure, self.path / f"page-{number}.png")
        maps = [picture.heat for picture in self.pictures if picture.heat is not None]
        if maps:
            record.write_array(self.path / "maps.npy", np.stack(maps))

    def copy(self, folder: str | Path) -> None:
        """Write each image as `<folder>/<actual>/<predicted>/<index>-<name>.png`.

        Raises RecipeError if the folder has anything in it, DiskError.
        """
        drawing.copy(self.pictures, Path(folder))


@dataclass(frozen=True)
class Only:
    """How many images are wanted at most, and of which classes."""

    count: int
    actual: str | None
    predicted: str | None

    def numbers(self, classes: list[str]) -> dict[str, int]:
        """The classes as positions in `classes`. RecipeError for an unknown one, or no images."""
        if self.count < 1:
            raise RecipeError(f"--count {self.count}: give at least 1")
        for key, name in self._classes:
            if name not in classes:
                raise RecipeError(
                    f"--{key} {name}: no class of this run{did_you_mean(name, classes)}"
                )
        return {key: classes.index(name) for key, name in self._classes}

    @property
    def words(self) -> str:
        """The classes for a title."""
        return "".join(f", {key} {name}" for key, name in self._classes)

    @property
    def ending(self) -> str:
        """What tells the folder of such a gallery from others."""
        classes = "".join(f"-{key}-{drawing.file_name(name)}" for key, name in self._classes)
        return f"-{self.count}{classes}"

    @property
    def _classes(self) -> list[tuple[str, str]]:
        given = (("actual", self.actual), ("predicted", self.predicted))
        return [(key, name) for key, name in given if name is not None]


def gallery(
    run: str | PathLike[str],
    count: int = 25,
    *,
    show: str = "wrong",
    by: str = "loss",
    seed: int = 0,
    actual: str | None = None,
    predicted: str | None = None,
    cam: bool = False,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Gallery:
    """Images of a finished run's test part, with their class and what they were taken for.

    `show` is wrong, right or all; `by` is loss or confidence, the highest first, or random, drawn
    from `seed`. `actual` and `predicted` keep one class each. `cam` adds Grad-CAM maps of the
    predicted class, computed on `device` with `threads`. Nothing is written before `save`.

    Raises RecipeError for a run that is missing or not finished and for an unknown option or
    class, DataError if its data is missing or has changed, MissingExtraError without captum.
    """
    folder = reopen.finished(run)
    for option, value, known in (("--show", show, SHOWN), ("--by", by, ORDERS)):
        if value not in known:
            raise RecipeError(f"{option} {value}: choose {', '.join(known)}")
    check_seed(seed)
    only = Only(count, actual, predicted)
    classes = files.read_json(folder / record.CLASSES)
    wanted = only.numbers(classes)
    probabilities, labels = record.read_predictions(folder, "test")
    found = pick(probabilities, labels, show, by, seed, **wanted)
    chosen = found[:count]
    feedback = progress.Show(quiet)
    digest = files.read_json(folder / record.SUMMARY)["data_digest"]
    data = reopen.dataset(folder, digest, feedback.decoded, feedback.downloaded)
    maps = None
    if cam and len(chosen):
        where = machine.choose(device, "fp32", threads)
        network = reopen.network(folder, where)
        targets = probabilities[chosen].argmax(axis=1)
        maps = class_maps(network, data.test.subset(chosen).images(), targets, where.device)
    order = ORDERS[by].format(seed=seed)
    kind = "" if show == "all" else f"{show} "
    name = f"{show}-by-{by}" + (f"-{seed}" if by == "random" else "") + ("-cam" if cam else "")
    return Gallery(
        drawing.gather(data.test, chosen, probabilities, labels, classes, maps),
        f"{data.name}: {len(chosen):,} of {len(found):,} {kind}test images{only.words}, {order}",
        folder / record.GALLERY / f"{name}{only.ending}",
    )
