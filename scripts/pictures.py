"""Write the pictures of docs/ that no verb writes, into docs/pictures/.

usage: python scripts/pictures.py DATA

DATA is what `onecycle train` takes as --data. The pictures in the repository were made from
CIFAR-10 as JPEG of quality 75.
"""

import io
import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from onecycle import files
from onecycle.datasets import augment
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load
from onecycle.datasets.noise import noise
from onecycle.machine import Machine
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.reporting import architecture, pictures, plots
from onecycle.training.state import create

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
CUTOUTS = {
    "davidnet": "side of 8 pixels",
    "davidnet-sgd": "16",
    "davidnet-dropout": "8, half of the time",
    "davidnet-random-cutout": "1 to 16, over the edge",
}
SHOWN = 35_000  # image of the training part
NETWORKS = ("davidnet", "resnet18", "dilated")
GROUPS = (8, 32, 128, 512)  # images
IMAGES = 4096  # that are cut into groups, at most


def main() -> None:
    """Write all of them."""
    data = load(sys.argv[1])
    made = {
        "residual": residual(),
        "receptive-field": receptive_field(),
        "cutout": cutout(data),
        "ghost-batches": ghost_batches(data),
        "whitening": whitening(data),
    }
    for name, figure in made.items():
        files.write_bytes(FOLDER / f"{name}.png", small(plots.png(figure)))


def small(png: bytes) -> bytes:
    """The same picture in 256 colours."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def residual() -> Figure:
    """DavidNet, block by block, as `onecycle summary davidnet --plot DIR` draws it."""
    rows = [asdict(layer) for layer in layers("davidnet")]
    return architecture.picture(rows, "davidnet for 10 classes, images of 32 pixels")


def receptive_field() -> Figure:
    """How far each network sees after each of its layers."""
    figure = plots.blank(8, 4)
    axes = figure.subplots()
    for name, colour in zip(NETWORKS, plots.PALETTE, strict=False):
        found = [row.receptive_field for row in layers(name) if re.search("conv|pool", row.kind)]
        # Where a shortcut has a convolution of its own, the longer way counts.
        widest = np.maximum.accumulate([1, *found])
        axes.plot(widest, color=colour, label=name, linewidth=1.8, marker="o", markersize=4)
    axes.axhline(32, color=plots.QUIET, zorder=0)
    axes.text(0.2, 33, "the image, 32 pixels", color="#777777", va="bottom", fontsize=8)
    axes.set_xlabel("convolutions and pools from the input")
    axes.set_ylabel("receptive field (pixels)")
    axes.set(xlim=(0, None), ylim=(0, None), xticks=range(0, 22, 3))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def cutout(data: Dataset) -> Figure:
    """One image as four recipes cut it, in their first eight epochs; not cropped or flipped."""
    shown = SHOWN % len(data.train)
    pixels = torch.from_numpy(data.train.images(shown, shown + 1))
    first = torch.zeros(1, dtype=torch.int64)
    draws = []
    for name in CUTOUTS:
        spec = book.find(name).augment.model_copy(update={"pad": 0, "flip": "none"})
        fill = augment.fill_colour(spec, data.mean)
        plans = [augment.draw(spec, 1, data.image_size, seed=9, epoch=epoch) for epoch in range(8)]
        cut = [augment.apply(spec, pixels, first, first, plan, fill)[0] for plan in plans]
        draws.append(torch.stack(cut).numpy())
    originals = pixels.numpy().repeat(len(draws), axis=0)
    title = f"Cutout in the recipes {', '.join(CUTOUTS)}"
    return pictures.augmented(title, list(CUTOUTS.values()), originals, np.stack(draws))


@torch.no_grad()
def ghost_batches(data: Dataset) -> Figure:
    """The mean of one channel of DavidNet's first convolution, in groups of different size."""
    model = build(book.find("davidnet").model, data, seed=0)
    seen = model.prep.conv(model.normalize(torch.from_numpy(data.train.images(0, IMAGES))))
    channel = seen.mean((2, 3))[:, 0].numpy()
    figure = plots.blank(8, 3.4)
    axes = figure.subplots()
    for y, size in enumerate(GROUPS):
        whole = len(channel) // size * size
        means = channel[:whole].reshape(-1, size).mean(axis=1)
        colour = plots.PALETTE[y]
        axes.plot(means, [y] * len(means), "|", color=colour, markersize=18, alpha=0.7)
    axes.set_yticks(range(len(GROUPS)), [f"groups of {size}" for size in GROUPS])
    axes.set_xlabel("mean of a channel over a group, before batch norm")
    axes.set_ylim(-0.6, len(GROUPS) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, axis="x")
    return figure


def whitening(data: Dataset) -> Figure:
    """The stem's filters before the first step, each scaled to the whole range of colours."""
    changes = ["model={name='speednet',width=8}", "groups=[{match='*',optimizer='adamw'}]"]
    recipe = book.change(book.find("davidnet"), changes)
    where = Machine("cpu", "fp32", 1, "nothing is trained")
    filters = create(recipe, data, where, seed=0).model.stem.weight.permute(0, 2, 3, 1).numpy()
    filters = filters[: len(filters) // 2]  # the others are their negatives
    scaled = 127.5 + 127.5 * filters / np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    rows = scaled.round().astype(np.uint8).reshape(2, 6, *filters.shape[1:])
    names = ["directions 1 to 6", "directions 7 to 12"]
    title = f"Filters of the whitening stem, 2x2 pixels, taken from {data.name}"
    return pictures.samples(title, list(zip(names, rows, strict=True)))


def layers(recipe: str) -> list[anatomy.Layer]:
    """The layers of a recipe's network for CIFAR-10."""
    with torch.device("meta"):
        return anatomy.layers(build(book.find(recipe).model, noise(10, 32), seed=0), 32)


if __name__ == "__main__":
    main()
