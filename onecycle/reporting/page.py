"""One HTML page on a finished run: no script, nothing from outside, and names that stay names."""

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from onecycle import files
from onecycle.recipe import book
from onecycle.reporting import architecture, evaluation_plots, lr_plots, plots
from onecycle.reporting.card import Chapter
from onecycle.reporting.gallery import Picture, enlarged
from onecycle.run import record

SCREEN = 96 / plots.DPI  # CSS pixels that a figure's pixel takes, so that fine screens show all


@dataclass(frozen=True)
class Shown:
    """A picture as the page holds it: a PNG in a data: address, its size in CSS pixels, and text.

    A chart may be shown in other colours on a dark screen, a photo may not.
    """

    address: str
    width: int
    height: int
    alt: str
    photo: bool


@dataclass(frozen=True)
class Contents:
    """What a page shows beside what is in the run folder.

    `evaluation` is as in `evaluation.json`, `layers` are dicts of `anatomy.Layer`, `growth` is as
    `plots.curves` takes it, `mistakes` are the worst first; `lacking` says why there are no
    pictures of the data.
    """

    evaluation: dict[str, Any]
    layers: Sequence[dict[str, Any]]
    schedule: Figure
    growth: Sequence[tuple[float, int]]
    card: Sequence[Chapter]
    samples: Figure | None = None
    augmented: Figure | None = None
    mistakes: Sequence[Picture] = ()
    lacking: str = ""


def render(folder: Path, contents: Contents) -> str:
    """The page on the finished run in `folder`. Raises DiskError for a file that can't be read."""
    summary, environment, recipe = (
        files.read_json(folder / name)
        for name in (record.SUMMARY, record.ENVIRONMENT, record.RECIPE)
    )
    templates = Environment(
        loader=PackageLoader("onecycle", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": _percent, "shape": architecture.shape}
    return templates.get_template("page.html").render(
        name=folder.resolve().name,
        summary=summary,
        environment=environment,
        command=command(folder, recipe, environment),
        recipe=tomli_w.dumps(recipe["recipe"]),
        found=contents.evaluation,
        layers=contents.layers,
        totals=architecture.totals(contents.layers),
        pictures=_pictures(folder, contents, summary),
        mistakes=[(mistake, _mistake(mistake)) for mistake in contents.mistakes],
        lacking=contents.lacking,
        card=contents.card,
    )


def command(folder: Path, recipe: dict[str, Any], environment: dict[str, Any]) -> str:
    """The command that makes the run in `folder` again, an option a line."""
    name, data = recipe["recipe"]["name"], environment["data"]
    backend = environment.get("augment_backend", "own")
    known = name in book.names() and book.find(name).digest() == recipe["digest"]
    options: dict[str, Any] = {
        "--recipe": name if known else folder / record.RECIPE,
        "--data": data["source"],
        "--seed": environment["seed"],
        "--val-fraction": environment["val_fraction"] or None,
        "--init": (environment.get("init") or {}).get("run"),
        "--augment-backend": None if backend == "own" else backend,
        "--image-size": data.get("image_size_asked"),
        "--device": environment["machine"]["device"],
        "--precision": environment["machine"]["precision"],
        "--threads": environment["machine"]["threads"],
    }
    lines = [f"{key} {shlex.quote(str(x))}" for key, x in options.items() if x is not None]
    lines += ["--skip-bad"] if data.get("skip_bad") else []
    start, processes = "onecycle", environment.get("processes", 1)
    if processes > 1:
        start = f"torchrun --nproc-per-node {processes} -m onecycle"
        lines.append("--out FOLDER")
    return " \\\n  ".join([f"{start} train", *lines])


def _pictures(folder: Path, contents: Contents, summary: dict[str, Any]) -> dict[str, Shown]:
    """The pictures that there are, by name."""
    found, layers = contents.evaluation, contents.layers
    metrics = record.read_metrics(folder)
    first, last = metrics[0], metrics[-1]
    part = "val" if "val_loss" in first else "test"
    cost = architecture.totals(layers)
    title = f"{summary['recipe']} ({summary['recipe_digest']})"
    drawn = [
        (
            "samples",
            contents.samples,
            "Training images of each class, with the class's name.",
            True,
        ),
        (
            "augmented",
            contents.augmented,
            "Training images, each followed by what the network was given of it, epoch by epoch.",
            True,
        ),
        (
            "network",
            architecture.picture(layers, plots.literal(title, 80)),
            f"The network's blocks from top to bottom, {cost['parameters']:,} parameters in all; "
            "the table below has every layer.",
            False,
        ),
        (
            "range_test",
            _range_test(folder),
            "The range test: loss against learning rate, and the rates steered to.",
            False,
        ),
        ("schedule", contents.schedule, "Learning rate and momentum at each step.", False),
        (
            "curves",
            plots.curves(metrics, contents.growth),
            f"Loss, accuracy and learning rate by epoch: training loss from "
            f"{first['train_loss']:.3f} to {last['train_loss']:.3f}, {part} accuracy from "
            f"{first[f'{part}_accuracy']:.2%} to {last[f'{part}_accuracy']:.2%}.",
            False,
        ),
        (
            "confusion",
            evaluation_plots.confusion(found),
            f"How often each of {len(found['classes'])} classes was taken for each; the most "
            "frequent mistakes are in the table below.",
            False,
        ),
        (
            "reliability",
            evaluation_plots.reliability(found),
            f"Accuracy against confidence; expected calibration error "
            f"{found['calibration']['ece']:.2%}.",
            False,
        ),
    ]
    return {
        name: _shown(plots.png(figure), alt, photo)
        for name, figure, alt, photo in drawn
        if figure is not None
    }


def _mistake(picture: Picture) -> Shown:
    content = io.BytesIO()
    Image.fromarray(enlarged(picture)).save(content, format="PNG", optimize=True)
    alt = f"Test image {picture.index}: {picture.actual}, taken for {picture.predicted}."
    if picture.heat is not None:
        alt += " Right of it, where the network looked."
    return _shown(content.getvalue(), alt, photo=True)


def _range_test(folder: Path) -> Figure | None:
    """The range test that was made in the run folder, if one was."""
    if not (folder / record.LR_FOUND).is_file():
        return None
    rows = record.read_table(folder / record.LR_TABLE)
    steered = folder / record.LR_STEERED
    return lr_plots.range_test(
        rows,
        record.read_table(steered) if steered.is_file() else [],
        files.read_json(folder / record.LR_FOUND),
    )


def _shown(png: bytes, alt: str, photo: bool) -> Shown:
    width, height = Image.open(io.BytesIO(png)).size
    return Shown(
        "data:image/png;base64," + base64.b64encode(png).decode(),
        round(width * SCREEN),
        round(height * SCREEN),
        alt,
        photo,
    )


def _percent(row: dict[str, Any], key: str) -> str:
    """A proportion with its interval."""
    if row[key] is None:
        return "n/a"
    return f"{row[key]:.2%} ({row[f'{key}_low']:.2%} to {row[f'{key}_high']:.2%})"
