"""Sheets of small images with their names, pixel for pixel: samples, augmentation, duplicates."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from onecycle.reporting.plots import DPI, JUDGED, blank

Pixels = NDArray[np.uint8]

TILE = 80  # pixels on the sheet that an image has at least, enlarged by a whole number
GAP = 2  # pixels between images
MARGIN = 12  # pixels around the sheet, and between groups of images
LINE = 18  # pixels from one line of text to the next
FRAME = 217  # grey level of the line around an image, so that a white one can be seen
TITLE = 900  # pixels for the title, at most
NAME = 220  # pixels for a name beside images, at most
CAPTION = 116  # pixels for a name below images, at least
FONT = FontProperties(family="DejaVu Sans", size=8)  # matplotlib brings it along
# Up to so many classes: groups side by side, and images in a group.
LAYOUTS = ((12, 1, 10), (24, 2, 5), (60, 5, 2), (100, 10, 1))
MOST_CLASSES = LAYOUTS[-1][0]


def layout(classes: int) -> tuple[int, int]:
    """How `samples` shows `classes`, 100 at most: groups side by side, and images in each."""
    return next((columns, images) for most, columns, images in LAYOUTS if classes <= most)


def samples(title: str, groups: Sequence[tuple[str, Pixels]]) -> Figure:
    """Classes with their names and images, (n, H, W, 3) each; beside images, or below if many."""
    columns, most = layout(len(groups))
    sheet = _Sheet(title, groups[0][1].shape[1])
    beside = columns == 1
    width = max(most * sheet.step, CAPTION) + MARGIN
    height = sheet.step + (0 if beside else LINE + GAP)
    for i, (name, images) in enumerate(groups):
        x, y = i % columns * width, i // columns * height
        sheet.strip(x, y, images)
        if beside:
            sheet.name(y, name)
        else:
            sheet.write(x, y + sheet.step, name, width - MARGIN)
    return sheet.figure()


def augmented(title: str, names: Sequence[str], originals: Pixels, draws: Pixels) -> Figure:
    """A row an image, (n, H, W, 3), and what it became in each epoch, (n, epochs, H, W, 3)."""
    sheet = _Sheet(title, originals.shape[1])
    apart = sheet.step + MARGIN
    sheet.write(0, 0, "original", apart)
    for epoch in range(draws.shape[1]):
        sheet.write(apart + epoch * sheet.step, 0, f"epoch {epoch}", sheet.step)
    for i, name in enumerate(names):
        y = LINE + i * sheet.step
        sheet.name(y, name)
        sheet.strip(0, y, originals[i : i + 1])
        sheet.strip(apart, y, draws[i])
    return sheet.figure()


def pairs(title: str, found: Sequence[tuple[Pixels, Sequence[str], bool]]) -> Figure:
    """Two images side by side, (2, H, W, 3), the lines of text below them, and whether to warn."""
    sheet = _Sheet(title, found[0][0].shape[1])
    width = 2 * sheet.step + MARGIN
    height = sheet.step + LINE * max(len(lines) for _, lines, _ in found) + MARGIN
    columns = max(1, 1000 // width)
    for i, (images, lines, warn) in enumerate(found):
        x, y = i % columns * width, i // columns * height
        sheet.strip(x, y, images)
        for k, line in enumerate(lines):
            colour = JUDGED if warn else "black"
            sheet.write(x, y + sheet.step + k * LINE, line, width - MARGIN, colour)
    return sheet.figure()


class _Sheet:
    """Images and lines of text at places in pixels, from the corner below the title."""

    def __init__(self, title: str, size: int) -> None:
        self._title = title
        self._scale = -(-TILE // size)
        self.step = self._scale * size + GAP  # pixels from one image to the next
        self._images: list[tuple[int, int, Pixels]] = []
        self._texts: list[tuple[int, int, str, str]] = []
        self._names: list[tuple[int, str]] = []

    def strip(self, x: int, y: int, images: Pixels) -> None:
        """Put images (n, H, W, 3) side by side, enlarged without smoothing."""
        for i, image in enumerate(images):
            large = image.repeat(self._scale, 0).repeat(self._scale, 1)
            self._images.append((x + i * self.step, y, large))

    def write(self, x: int, y: int, text: str, width: int, colour: str = "black") -> None:
        """Write `text`, shortened to `width`."""
        self._texts.append((x, y, fitted(text, width), colour))

    def name(self, y: int, text: str) -> None:
        """Write `text` to the left of all images, at the middle of an image's height."""
        self._names.append((y + (self.step - LINE) // 2, fitted(text, NAME)))

    def figure(self) -> Figure:
        """The sheet, as large as what is on it."""
        beside = max((width_of(text) + MARGIN for _, text in self._names), default=0)
        x0, y0 = MARGIN + beside, MARGIN + LINE + GAP
        texts = [(MARGIN, MARGIN - GAP, fitted(self._title, TITLE), "black")]
        texts += [(MARGIN, y0 + y, text, "black") for y, text in self._names]
        texts += [(x0 + x, y0 + y, text, colour) for x, y, text, colour in self._texts]
        images = [(x0 + x, y0 + y, image) for x, y, image in self._images]
        right = max(x + width_of(text) for x, _, text, _ in texts)
        right = max(right, *(x + image.shape[1] for x, _, image in images))
        bottom = max(y + LINE for _, y, _, _ in texts)
        bottom = max(bottom, *(y + image.shape[0] for _, y, image in images))
        canvas = np.full((bottom + MARGIN, right + MARGIN, 3), 255, np.uint8)
        for x, y, image in images:
            height, width = image.shape[:2]
            canvas[y - 1 : y + height + 1, x - 1 : x + width + 1] = FRAME
            canvas[y : y + height, x : x + width] = image
        return _drawn(canvas, texts)


def _drawn(canvas: Pixels, texts: Sequence[tuple[int, int, str, str]]) -> Figure:
    height, width = canvas.shape[:2]
    # A little more than whole pixels, which would otherwise be rounded down.
    figure = blank((width + 0.01) / DPI, (height + 0.01) / DPI)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(canvas, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
    for x, y, text, colour in texts:
        # No mathematics: a class may be called `$x$`.
        axes.text(x, y, text, va="top", color=colour, fontproperties=FONT, parse_math=False)
    return figure


def fitted(text: str, width: float) -> str:
    """`text` with its middle left out so far that it is at most `width` pixels wide.

    Characters that the font doesn't have are written as their numbers, such as `\\u732b`.
    """
    text = "".join(
        c if ord(c) in _characters() else c.encode("unicode_escape").decode() for c in text
    )
    if width_of(text) <= width:
        return text

    def shortened(kept: int) -> str:
        return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]

    sizes = range(1, len(text))
    fits = bisect_right(sizes, width, key=lambda kept: width_of(shortened(kept)))
    return shortened(max(1, fits))


def width_of(text: str) -> int:
    """How wide `text` is on a sheet, in pixels."""
    points = text_to_path.get_text_width_height_descent(text, FONT, ismath=False)[0]
    return int(np.ceil(points * DPI / 72))


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())
