"""What a training image costs as the work grows: more images, larger images.

Trains on synthetic data, written once and opened memory-mapped as the cache's are, each size in a
process of its own, the sizes in turn, there and back, so that a busy machine slows all of them
alike. Time is the CPU's (user and system, one thread), and of several turns the least, which other
programs disturbed least; the draw of an epoch's plan is part of it. Memory is anonymous (RssAnon):
pages of the mapped file count as resident too, but the system takes them back when it needs room.
Operations are those of convolutions and products.

usage: python bench/scale.py --results DIR [--counts 5000 50000 500000] [--sizes 32 64 128]
           [--width 16] [--steps 16] [--turns 3] [--scratch DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from onecycle import files, machine
from onecycle.datasets import augment
from onecycle.datasets.dataset import Dataset, Split
from onecycle.datasets.noise import noise
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.training import state as states
from onecycle.training.loop import fit

BATCH, CLASSES = 64, 10
FEWEST_STEPS = 4  # that are timed, however large the images
CHUNK = 10_000  # images written at once
MB = 1e6
FLAT = 0.1  # how far a cost may lie from that of the smallest data, as a fraction


def write(path: Path, count: int, size: int) -> None:
    """`count` random images of `size` pixels as raw bytes, if they are not there yet."""
    if path.exists():
        return
    draw = np.random.default_rng(0)
    with files.atomic_file(path) as file:
        for start in range(0, count, CHUNK):
            file.write(draw.bytes(min(CHUNK, count - start) * size * size * 3))


def opened(path: Path, count: int, size: int) -> Dataset:
    """The data set in `path`, memory-mapped as `onecycle.datasets.entry` does it."""
    pixels = np.memmap(path, np.uint8, mode="c", shape=(count, size, size, 3))
    split = Split(pixels, np.arange(count), np.arange(count) % CLASSES)
    return Dataset("scale", tuple(map(str, range(CLASSES))), split, split, "scale")


def recipe_of(width: int) -> Recipe:
    """A narrow davidnet, of which what is not the network weighs more; a batch is one group."""
    changes = [f"model.width={width}", f"batch_size={BATCH}", f"ghost_batch={BATCH}"]
    return book.change(book.find("davidnet"), changes)


def operations(recipe: Recipe, size: int) -> float:
    """Of training on one image: three times the forward pass's, two a multiply-add."""
    with torch.device("meta"):
        model = build(recipe.model, noise(CLASSES, size), seed=0)
        layers = anatomy.layers(model, size)
    return 6.0 * sum(layer.multiply_adds for layer in layers)


def memory() -> dict[str, float]:
    """What this process holds, in MB: anonymous, and mapped files' pages."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        key: int(lines[name].split()[0]) * 1024 / MB
        for key, name in (("anonymous_mb", "RssAnon"), ("mapped_mb", "RssFile"))
    }


def measure(path: Path, count: int, size: int, width: int, steps: int) -> dict[str, Any]:
    """Train on the data in `path` for `steps` steps after one that warms up."""
    recipe, data = recipe_of(width), opened(path, count, size)
    where = machine.choose("cpu", "fp32", 1)
    data.mean  # noqa: B018 (read once a run, before it)
    start = time.process_time()
    augment.draw(recipe.augment, count, size, seed=0, epoch=0)
    draw = (time.process_time() - start) / count
    training = fit(states.create(recipe, data, where, seed=0), data, recipe, where, seed=0)
    next(training)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(training)
    images = steps * BATCH
    return {
        "cpu_seconds": (time.process_time() - cpu) / images + draw,
        "wall_seconds": (time.perf_counter() - wall) / images + draw,
        **memory(),
    }


def in_turn(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Each pair of count and size, and its least time and memory of as many turns as asked for."""
    cases = [(count, options.sizes[0]) for count in options.counts]
    cases += [(options.counts[0], size) for size in options.sizes[1:]]
    taken: dict[tuple[int, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for count, size in cases:
        write(scratch / f"{count}-{size}.u8", count, size)
    for turn in range(options.turns):
        for count, size in cases if turn % 2 == 0 else reversed(cases):
            steps = max(FEWEST_STEPS, options.steps * options.sizes[0] ** 2 // size**2)
            case = [scratch / f"{count}-{size}.u8", count, size, options.width, steps]
            words = [sys.executable, __file__, "--one", *map(str, case)]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            taken[count, size].append(json.loads(done.stdout))
            print(f"turn {turn}: {count:,} images of {size}: {done.stdout}", file=sys.stderr)
    recipe = recipe_of(options.width)
    return [
        {
            "images": count,
            "size": size,
            "operations": operations(recipe, size),
            **{key: min(turn[key] for turn in turns) for key in turns[0]},
            "cpu_seconds_of_turns": [turn["cpu_seconds"] for turn in turns],
        }
        for (count, size), turns in taken.items()
    ]


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Cost and memory by the number of images, and cost by their size against the operations."""
    small = rows[0]["size"]
    by_count = [row for row in rows if row["size"] == small]
    by_size = [row for row in rows if row["images"] == rows[0]["images"]]
    drawn = plots.blank(11, 3.6)
    cost, held, growth = drawn.subplots(1, 3)
    counts = [row["images"] for row in by_count]
    base = by_count[0]["cpu_seconds"] * 1e3
    cost.axhspan(
        *(base * (1 - FLAT), base * (1 + FLAT)),
        color=plots.QUIET,
        alpha=0.4,
        label=f"within {FLAT:.0%} of the first",
    )
    style = {"marker": "o", "linewidth": 1.8, "color": plots.TRAIN}
    cost.plot(counts, [1e3 * row["cpu_seconds"] for row in by_count], **style)
    cost.set_ylabel("CPU time of training on an image (ms)")
    cost.set_ylim(0, 1.5 * base)
    held.plot(counts, [row["anonymous_mb"] for row in by_count], label="anonymous", **style)
    sizes_mb = [row["images"] * small**2 * 3 / MB for row in by_count]
    held.plot(counts, sizes_mb, color=plots.JUDGED, linestyle="--", label="the pixels' file")
    held.set_ylabel("memory (MB)")
    held.set_ylim(bottom=0)
    for axes in (cost, held):
        axes.set_xscale("log")
        axes.set_xlabel(f"training images of {small} pixels")
    sizes = [row["size"] for row in by_size]
    first = by_size[0]
    grown = [first["cpu_seconds"] * (row["operations"] / first["operations"]) for row in by_size]
    growth.plot(sizes, [1e3 * each for each in grown], "--", color=plots.JUDGED, label="operations")
    growth.plot(sizes, [1e3 * row["cpu_seconds"] for row in by_size], label="measured", **style)
    growth.set_xlabel("height and width of the images (pixels)")
    growth.set_ylabel("CPU time of training on an image (ms)")
    growth.set_xscale("log", base=2)
    growth.set_yscale("log")
    growth.yaxis.set_major_formatter("{x:g}")
    growth.yaxis.set_minor_formatter("")
    growth.set_xticks(sizes, [str(size) for size in sizes])
    for axes in (cost, held, growth):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return drawn


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How far costs lie from the smallest data's, and how they grow for each operation."""
    first = rows[0]
    return {
        "cost_by_images": {
            f"{row['images']}": row["cpu_seconds"] / first["cpu_seconds"]
            for row in rows
            if row["size"] == first["size"]
        },
        "anonymous_bytes_an_image": [
            (row["anonymous_mb"] - first["anonymous_mb"]) * MB / (row["images"] - first["images"])
            for row in rows
            if row["images"] > first["images"]
        ],
        "cost_an_operation_by_size": {
            f"{row['size']}": row["cpu_seconds"]
            / row["operations"]
            / (first["cpu_seconds"] / first["operations"])
            for row in rows
            if row["images"] == first["images"]
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, write `scale.json` and `scale.png`, and print what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 50_000, 500_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="keeps the synthetic data")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        path, *numbers = options.one
        print(json.dumps(measure(Path(path), *map(int, numbers))))
        return
    if options.results is None:
        parser.error("--results is needed")
    with tempfile.TemporaryDirectory(dir=options.scratch) as temporary:
        rows = in_turn(options, options.scratch or Path(temporary))
    found = {
        "hardware": machine.device_name("cpu"),
        "width": options.width,
        "turns": options.turns,
        **verdict(rows),
        "rows": rows,
    }
    files.write_json(files.make_folder(options.results) / "scale.json", found)
    plots.save(figure(rows), options.results / "scale.png")
    print(json.dumps(verdict(rows), indent=2))


if __name__ == "__main__":
    main()
