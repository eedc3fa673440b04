"""A network's layers as a table of text, and as a picture of its blocks with residual arcs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from onecycle.reporting.plots import blank

Layers = Sequence[Mapping[str, Any]]

HEADS = ("layer", "what", "output", "parameters", "sees px", "mult-adds M", "MB")
NOTES = (
    "sees: side of the square of input pixels that an output number depends on (its receptive\n"
    "field), padding included. mult-adds: millions of multiply-adds of convolutions and matrix\n"
    "products, forward. MB: the layer's output in fp32, in 10^6 bytes. All for one image."
)
ARC, EDGE = "#D55E00", "#777777"
# Tints of Okabe and Ito's colours, one for each size of the map.
TINTS = ("#D6EAF6", "#DDF1E8", "#FBEBCB", "#F6DDEA", "#E6E6E6")
NAME, BOX = 0.15, 7.6  # x of the names, and of the boxes' right edge
COLUMNS = (9.0, 10.5, 11.5, 12.9)  # right edges of shape, parameters, sees, multiply-adds


def totals(layers: Layers) -> dict[str, Any]:
    """Parameters, multiply-adds and activations in all, and the largest receptive field."""
    summed = {
        key: sum(layer[key] for layer in layers)
        for key in ("parameters", "multiply_adds", "activation_mb")
    }
    return {**summed, "receptive_field": max(layer["receptive_field"] for layer in layers)}


def table(layers: Layers) -> str:
    """A line for each layer and one for them all, then what the columns mean."""
    rows = [(row["name"], row["kind"], shape(row["shape"]), *_figures(row)) for row in layers]
    rows = [HEADS, *rows, ("total", "", "", *_figures(totals(layers)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if column < 3 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", NOTES])


def shape(sizes: Sequence[int]) -> str:
    """A shape as people write it: 64x32x32."""
    return "x".join(str(size) for size in sizes)


def _figures(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['parameters']:,}",
        str(row["receptive_field"]),
        f"{row['multiply_adds'] / 1e6:,.1f}",
        f"{row['activation_mb']:.3f}",
    )


@dataclass
class _Block:
    """Layers of one module that follow each other."""

    name: str
    layers: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def side(self) -> int:
        """Pixels of the map that it gives."""
        sizes = self.layers[-1]["shape"]
        return int(sizes[-1]) if len(sizes) > 1 else 1


@dataclass(frozen=True)
class _Arc:
    """From what a block gives to an addition in a later one, and what is done on the way."""

    source: int
    target: int
    words: str


def picture(layers: Layers, title: str) -> Figure:
    """The blocks of a network from top to bottom, an arc over each residual branch.

    At an addition the branch that sees more of the image is drawn as the chain, and what the
    other one does stands beside its arc.
    """
    chain = _chain(layers)
    blocks, block_of = _grouped(layers, chain)
    arcs = _arcs(layers, chain, block_of)
    figure = blank(11, 0.42 * len(blocks) + 0.9)
    axes = figure.subplots()
    left = -2.4 if any(arc.words for arc in arcs) else -1.0
    axes.set(xlim=(left, COLUMNS[-1] + 0.1), ylim=(len(blocks) - 0.4, -1.0))
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, loc="left")
    for x, head in zip(COLUMNS, ("output", *HEADS[3:6]), strict=True):
        axes.text(x, -0.65, head, ha="right", va="center", fontsize=8, color="#555555")
    tints = dict(zip(dict.fromkeys(block.side for block in blocks), TINTS * 3, strict=False))
    words_at = NAME + 0.1 + 0.1 * max(len(block.name) for block in blocks)
    for y, block in enumerate(blocks):
        _draw_block(axes, y, block, tints[block.side], words_at)
    for arc in arcs:
        _draw_arc(axes, arc)
    return figure


def _chain(layers: Layers) -> list[int]:
    """The layers from the input to the output, by the branch that sees more at each addition."""
    chain = [len(layers) - 1]
    while layers[chain[-1]]["inputs"]:
        chain.append(max(layers[chain[-1]]["inputs"], key=lambda i: layers[i]["receptive_field"]))
    return chain[::-1]


def _grouped(layers: Layers, chain: list[int]) -> tuple[list[_Block], dict[int, int]]:
    """The chain's layers by the module that they are in, and the block that each one is in."""
    blocks: list[_Block] = []
    block_of = {}
    for i in chain:
        name = layers[i]["name"]
        owner = name.rpartition(".")[0] or name
        if not blocks or not f"{blocks[-1].name}.".startswith(f"{owner}."):
            blocks.append(_Block(owner))
        blocks[-1].layers.append(layers[i])
        block_of[i] = len(blocks) - 1
    return blocks, block_of


def _arcs(layers: Layers, chain: list[int], block_of: Mapping[int, int]) -> list[_Arc]:
    """An arc for each branch that is not the chain."""
    arcs = []
    for before, i in pairwise(chain):
        for branch in set(layers[i]["inputs"]) - {before}:
            passed: list[Mapping[str, Any]] = []
            while branch not in block_of:
                passed.insert(0, layers[branch])
                (branch,) = layers[branch]["inputs"]
            words = _words(passed)
            if words:
                words += f"\n{totals(passed)['parameters']:,} parameters"
            arcs.append(_Arc(block_of[branch], block_of[i], words))
    return arcs


def _draw_block(axes: Axes, y: int, block: _Block, tint: str, words_at: float) -> None:
    axes.add_patch(
        FancyBboxPatch((0, y - 0.36), BOX, 0.72, "round,pad=0,rounding_size=0.12", fc=tint, ec=EDGE)
    )
    if y:
        axes.plot([BOX / 2, BOX / 2], [y - 0.64, y - 0.36], color=EDGE, linewidth=1, zorder=0)
    axes.text(NAME, y, block.name, va="center", fontsize=8, weight="bold")
    axes.text(words_at, y, _words(block.layers), va="center", fontsize=8)
    last, summed = block.layers[-1], totals(block.layers)
    figures = _figures({**summed, "receptive_field": last["receptive_field"]})
    for x, cell in zip(COLUMNS, (shape(last["shape"]), *figures[:3]), strict=True):
        axes.text(x, y, cell, ha="right", va="center", fontsize=8)


def _draw_arc(axes: Axes, arc: _Arc) -> None:
    """A line on the left, from the lower part of one block to that of another."""
    start, end, out = arc.source + 0.2, arc.target + 0.1, -0.75
    middle = (start + end) / 2
    corners = [(0, start), (out, start), (out, start + 0.2), (out, middle)]
    corners += [(out, end - 0.2), (out, end), (-0.08, end)]
    curve = Path(corners, [Path.MOVETO, *[Path.CURVE4] * 6])
    axes.add_patch(PathPatch(curve, fc="none", ec=ARC, linewidth=1.5))
    axes.plot(-0.1, end, marker=">", color=ARC, markersize=5)
    axes.text(out - 0.1, middle, arc.words, ha="right", va="center", fontsize=7, color=ARC)


def _words(layers: Layers) -> str:
    """What `layers` do one after another, in few letters."""
    words = " → ".join(layer["kind"] for layer in layers)
    return words.replace("batch norm", "BN").replace("fully connected", "linear")
