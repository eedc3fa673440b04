"""Pictures with what they are and what they were taken for: pages, a listing, and copies."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from onecycle import files
from onecycle.datasets.dataset import Split
from onecycle.errors import RecipeError
from onecycle.evaluation.likelihood import Labels, Probabilities
from onecycle.evaluation.metrics import losses
from onecycle.reporting.evaluation_tables import text
from onecycle.reporting.pictures import FONT, fitted
from onecycle.reporting.plots import DPI, JUDGED, RATE, blank

PAGE = 100  # pictures of a figure at most
SIDE = 128  # pixels that a picture is enlarged to, by a whole number
CELL = 190  # pixels of width that a caption needs
LINE, GAP, TOP = 15, 14, 50  # pixels: a caption's line, between cells, above them
SMALL = 6.5  # points of a caption
LISTED = ("index", "name", "actual", "predicted", "confidence", "loss", "quality")


@dataclass(frozen=True)
class Picture:
    """An image (H, W, 3) uint8, where it is from, what it is and what it was taken for.

    `index` counts from 0 in its part of the data. `heat` (H, W) is a class activation map;
    `quality` is how well the label fits, from 0 to 1, where labels are in doubt.
    """

    pixels: NDArray[np.uint8]
    index: int
    name: str
    actual: str
    predicted: str
    confidence: float
    loss: float
    heat: NDArray[np.float32] | None = None
    quality: float | None = None


def gather(
    split: Split,
    chosen: NDArray[np.int64],
    probabilities: Probabilities,
    labels: Labels,
    classes: Sequence[str],
    maps: NDArray[np.float32] | None = None,
    quality: NDArray[np.floating[Any]] | None = None,
) -> tuple[Picture, ...]:
    """The images at the positions `chosen` of `split`, with what is known of them.

    `probabilities`, `labels` and `quality` are of the whole split, `maps` (n, H, W) of the chosen.
    """
    images = split.subset(chosen).images()
    predicted, loss = probabilities.argmax(axis=1), losses(probabilities, labels)
    return tuple(
        Picture(
            pixels=images[place],
            index=int(i),
            name=split.names[i] if split.names else "",
            actual=classes[labels[i]],
            predicted=classes[predicted[i]],
            confidence=float(probabilities[i, predicted[i]]),
            loss=float(loss[i]),
            heat=None if maps is None else maps[place],
            quality=None if quality is None else float(quality[i]),
        )
        for place, i in enumerate(chosen)
    )


def page(pictures: Sequence[Picture], title: str) -> Figure:
    """A figure of all `pictures`, enlarged without smoothing, each above its caption."""
    tiles = [enlarged(picture) for picture in pictures]
    height, width = (max((tile.shape[i] for tile in tiles), default=SIDE) for i in (0, 1))
    columns = max(3, min(10, math.ceil(math.sqrt(len(pictures)))))
    step_x = max(width, CELL) + GAP
    step_y = height + 4 * LINE + GAP
    rows = -(-len(pictures) // columns)
    canvas = np.full((TOP + rows * step_y, GAP + columns * step_x, 3), 255, np.uint8)
    figure = blank(canvas.shape[1] / DPI, canvas.shape[0] / DPI)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for place, (picture, tile) in enumerate(zip(pictures, tiles, strict=True)):
        x, y = GAP + place % columns * step_x, TOP + place // columns * step_y
        canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        for number, (line, colour) in enumerate(_caption(picture)):
            below = y + height + 4 + number * LINE
            line = _fitting(line, SMALL, step_x - GAP)
            axes.text(x, below, line, fontsize=SMALL, color=colour, va="top")
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.text(GAP, TOP / 2, _fitting(title, 8, columns * step_x - GAP), fontsize=8, va="center")
    return figure


def rows(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """All that is known of each picture but its pixels and map."""
    return [{name: getattr(picture, name) for name in LISTED} for picture in pictures]


def listing(pictures: Sequence[Picture]) -> bytes:
    """The same as CSV."""
    return text([LISTED, *(list(row.values()) for row in rows(pictures))])


def copy(pictures: Sequence[Picture], folder: Path) -> None:
    """Write each image as `<folder>/<actual>/<predicted>/<index>-<name>.png`.

    Raises RecipeError if the folder has anything in it, DiskError.
    """
    with files.disk_errors(folder, "use the folder"):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise RecipeError(f"--copy {folder} is there and not empty: name another folder")
    for picture in pictures:
        content = io.BytesIO()
        Image.fromarray(picture.pixels).save(content, format="PNG")
        place = files.make_folder(folder / file_name(picture.actual) / file_name(picture.predicted))
        name = f"{picture.index:05d}-{file_name(PurePosixPath(picture.name).stem)}".rstrip("-_")
        files.write_bytes(place / f"{name}.png", content.getvalue())


def file_name(name: str) -> str:
    """`name` as one harmless part of a path."""
    part = re.sub(r"[/\\:\x00-\x1f\x7f]", "_", name)[:100]
    return f"_{part}" if part.startswith(".") or not part else part


def _caption(picture: Picture) -> list[tuple[str, str]]:
    """Lines and their colours."""
    colour = RATE if picture.actual == picture.predicted else JUDGED
    figures = f"{picture.confidence:.1%}, loss {picture.loss:.2f}"
    if picture.quality is not None:
        figures = f"{picture.confidence:.1%}, label quality {picture.quality:.2g}"
    name = PurePosixPath(picture.name).name or f"image {picture.index}"
    first = "labelled" if picture.quality is not None else "actual"
    return [
        (f"{first}: {picture.actual}", "black"),
        (f"predicted: {picture.predicted}", colour),
        (figures, "black"),
        (name, "#666666"),
    ]


def _fitting(text: str, points: float, width: float) -> str:
    """`text` as matplotlib shows it letter by letter, at most `width` pixels wide."""
    return fitted(text, width * FONT.get_size() / points).replace("$", r"\$")


def enlarged(picture: Picture) -> NDArray[np.uint8]:
    """The image enlarged without smoothing, and to its right the same under its map, if any."""
    times = max(1, SIDE // len(picture.pixels))
    large = picture.pixels.repeat(times, axis=0).repeat(times, axis=1)
    if picture.heat is None:
        return large
    return np.concatenate([large, _overlay(large, picture.heat)], axis=1)


def _overlay(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image in grey, tinted by the map from its 0 to its largest value."""
    smooth = Image.fromarray(heat / max(heat.max(), 1e-12)).resize(
        image.shape[1::-1], Image.Resampling.BILINEAR
    )
    tint = 255 * colormaps["inferno"](np.asarray(smooth))[..., :3]
    grey = image.mean(axis=2, keepdims=True)
    blended: NDArray[np.uint8] = np.rint(0.5 * grey + 0.5 * tint).astype(np.uint8)
    return blended
