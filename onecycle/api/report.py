"""The report on a run as a Python function: one HTML page, and a model card."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from onecycle import files, progress
from onecycle.api.data import DataFacts
from onecycle.api.evaluation import assess
from onecycle.api.gallery import gallery
from onecycle.api.summary import draw_schedule
from onecycle.datasets.duplicates import Duplicates
from onecycle.errors import DataError, DiskError, MissingExtraError
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting import card as cards
from onecycle.reporting import page
from onecycle.run import record, reopen
from onecycle.training.schedule import growth, timetable

REPORT = "report.html"
MISTAKES = 24  # images that the page shows


@dataclass(frozen=True)
class Report:
    """A page that was written, its size, and the model card if one was asked for."""

    path: Path
    bytes: int
    card: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "card": None if self.card is None else str(self.card),
        }


def report(
    run: str | PathLike[str],
    *,
    out: str | Path | None = None,
    card: str | Path | None = None,
    quiet: bool = False,
) -> Report:
    """Write all there is to know about a finished run as one HTML page, its `report.html`.

    The page has neither script nor request, and all its pictures in it. `out` names another file;
    `card` one for the page's model card as Markdown. The worst mistakes have class activation maps
    if captum is there. Where the data can't be read again, or a library that augmented it is gone,
    its pictures are left out, and the page says why.

    Raises RecipeError for a run that is missing or not finished, DiskError.
    """
    folder = reopen.finished(run)
    show = progress.Show(quiet)
    recipe = book.find(str(folder / record.RECIPE))
    evaluation = assess(folder).figures
    chapters = cards.chapters(folder, evaluation)
    pictures: dict[str, Any] = {}
    try:
        pictures = _pictures(folder, recipe, show)
    except (DataError, DiskError, MissingExtraError) as error:
        pictures = {"lacking": str(error)}
        show.note(f"the report has no pictures of the data: {error}")
    contents = page.Contents(
        evaluation=evaluation,
        layers=_layers(folder, recipe),
        schedule=_schedule(folder, recipe),
        growth=_growth(folder, recipe),
        card=chapters,
        **pictures,
    )
    content = page.render(folder, contents).encode()
    path = Path(out) if out else folder / REPORT
    files.write_bytes(path, content)
    if card is not None:
        name = folder.resolve().name
        files.write_bytes(Path(card), cards.markdown(name, chapters).encode())
    return Report(path, len(content), None if card is None else Path(card))


def _pictures(folder: Path, recipe: Recipe, show: progress.Show) -> dict[str, Any]:
    """What can be shown of the run's data, with what augments it, and what was taken for what."""
    summary = files.read_json(folder / record.SUMMARY)
    data = reopen.dataset(folder, summary["data_digest"], show.decoded, show.downloaded)
    backend = files.read_json(folder / record.ENVIRONMENT).get("augment_backend", "own")
    facts = DataFacts(data, Duplicates((), ()), recipe, summary["seed"], backend)
    maps = find_spec("captum") is not None
    mistakes = gallery(folder, MISTAKES, cam=maps, quiet=True).pictures
    return {"samples": facts.samples(), "augmented": facts.augmented(), "mistakes": mistakes}


def _layers(folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The layers of the run's network, which neither its data nor its weights are needed for."""
    images = reopen.images(folder)
    with torch.device("meta"):
        network = build(recipe.model, images, seed=0)
    return [asdict(layer) for layer in anatomy.layers(network, images.image_size)]


def _growth(folder: Path, recipe: Recipe) -> list[tuple[float, int]]:
    """The sizes that the run's images had."""
    images = files.read_json(folder / record.SUMMARY)["train_images"]
    return growth(recipe, images, reopen.images(folder).image_size)


def _schedule(folder: Path, recipe: Recipe) -> Figure:
    """The rate and momentum at each step of the run."""
    images = files.read_json(folder / record.SUMMARY)["train_images"]
    return draw_schedule(recipe, timetable(recipe, images), images)
