"""Write docs/references.md: what the five references state beside what their networks compute.

usage: python scripts/references.py

What is quoted from a README is typed here; everything else comes from the recipes' networks and
schedules when the page is made.
"""

from functools import cache
from math import exp, log
from pathlib import Path

import torch

from onecycle import files
from onecycle.datasets.noise import noise
from onecycle.model import anatomy
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.training.schedule import Timetable, timetable

PAGE = Path(__file__).resolve().parent.parent / "docs" / "references.md"
TRAIN, TEST, CLASSES, SIZE = 50_000, 10_000, 10, 32  # CIFAR-10

RECIPES = (
    "davidnet-random-cutout",
    "davidnet-sgd",
    "davidnet-dropout",
    "davidnet-reflect",
    "davidnet-gap",
    "resnet18",
    "dilated",
    "davidnet",
)
# 000, "Model Parameters & Receptive Field": its rows that have parameters.
ROWS_000 = (
    1_792,
    36_928,
    36_928,
    147_584,
    295_040,
    590_080,
    1_180_160,
    2_359_808,
    2_359_808,
    5_130,
)
# 001, "Training Progression": rate by epoch.
LOG_001 = {0: "0.004006", 5: "0.038148", 10: "0.028664", 15: "0.019180"}
LOG_001 |= {20: "0.009696", 23: "0.004006"}
# 001, "Learning Rate Range Test Results": accuracy at 0.0001, 0.00109 and so on, evenly spaced.
TEST_001 = (21.20, 36.26, 40.11, 40.94, 41.04, 40.68, 35.17, 24.54, 26.54, 21.97)
# 001, "Class-wise Performance Analysis".
CLASSES_001 = (100, 100, 100, 100, 100, 87, 100, 100, 100, 83)
# 002, the table under "About Model", line by line: layer, output, parameters.
TABLE_002 = """
Conv2d 64x32x32 1728, BatchNorm2d 64x32x32 128, ReLU 64x32x32 0, Dropout 64x32x32 0,
Conv2d 128x32x32 73728, MaxPool2d 128x16x16 0,
BatchNorm2d 128x16x16 256, ReLU 128x16x16 0, Dropout 128x16x16 0,
Conv2d 128x16x16 147456, BatchNorm2d 128x16x16 256, ReLU 128x16x16 0, Dropout 128x16x16 0,
Conv2d 128x16x16 147456, BatchNorm2d 128x16x16 256, ReLU 128x16x16 0, Dropout 128x16x16 0,
Conv2d 256x16x16 294912, MaxPool2d 256x8x8 0,
BatchNorm2d 256x8x8 512, ReLU 256x8x8 0, Dropout 256x8x8 0,
Conv2d 512x8x8 1179648, MaxPool2d 512x4x4 0,
BatchNorm2d 512x4x4 1024, ReLU 512x4x4 0, Dropout 512x4x4 0,
Conv2d 512x4x4 2359296, BatchNorm2d 512x4x4 1024, ReLU 512x4x4 0, Dropout 512x4x4 0,
Conv2d 512x4x4 2359296, BatchNorm2d 512x4x4 1024, ReLU 512x4x4 0, Dropout 512x4x4 0,
MaxPool2d 512x1x1 0, Linear 10 5120
"""
HEAD = """# The five references: what they state, and what is computed

Made by `python scripts/references.py`; a test holds that it is up to date. Under "stated" stands
what a reference's README says (or, where named, its code), under "computed" what the network and
schedule of the recipe of that name give, when this page is made. What each recipe corrects, keeps
and chooses is said in its file: `onecycle recipes NAME`.
"""
SOURCES = {
    "davidnet-random-cutout": 'Stated under "Model" and "Model Parameters & Receptive Field".',
    "davidnet-sgd": """Stated under "What I Did", "Results & Impact" and "Tools & Features Used".
Epochs count from 0; every class has as many test images.""",
    "davidnet-dropout": 'Stated under "About Model" and "Targets".',
    "davidnet-reflect": """Stated under "Objectives", "Code Structure" and
"Inferences and Analysis".""",
    "davidnet-gap": """Stated under "Final Layers" and "Analysis". Its finder's plot leaves out the
iterations before the 10th: the rate was the first one plotted.""",
}
Row = tuple[str, str, str]


def main() -> None:
    """Write the page."""
    files.make_folder(PAGE.parent)
    files.write_bytes(PAGE, page().encode())


def page() -> str:
    """The whole page, as Markdown."""
    sections = [HEAD, _recipes(), _stages()]
    all_rows = (_rows_000(), _rows_001(), _rows_002(), _rows_003(), _rows_004())
    for number, (name, rows) in enumerate(zip(SOURCES, all_rows, strict=True)):
        lines = [f"## Reference {number:03}: `{name}`", "", SOURCES[name], ""]
        lines += ["| | stated | computed |", "|---|---|---|"]
        lines += [
            f"| {what} | {stated or 'not stated'} | {found} |" for what, stated, found in rows
        ]
        sections.append("\n".join([*lines, ""]))
    return "\n".join(sections)


def _recipes() -> str:
    lines = [
        "## Recipes",
        "",
        "Ten classes, 50,000 training images of 32 pixels; M is a million multiply-adds an image,",
        "forward; the peak is the highest rate that a step has.",
        "",
        "| recipe | parameters | M | receptive field | start, peak, final rate | steps |",
        "|---|---|---|---|---|---|",
    ]
    for name in RECIPES:
        rows, table = _layers(name), _table(name)
        rates = _rates(name)
        lines.append(
            f"| `{name}` | {_parameters(rows):,} | {_operations(rows)} "
            f"| {rows[-1].receptive_field} | {rates[0]:.4g}, {max(rates):.4g}, {rates[-1]:.4g} "
            f"| {table.total_steps:,} |"
        )
    return "\n".join(lines) + "\n"


def _stages() -> str:
    lines = [
        "## The network that they share",
        "",
        "| stage | output | receptive field | M |",
        "|---|---|---|---|",
    ]
    rows = _layers("davidnet")
    names = ["prep", "layer1.x", "layer1.residual.first", "layer1.residual.second", "layer2"]
    names += ["layer3.x", "layer3.residual.first", "layer3.residual.second", "pool", "fc"]
    for name in names:
        members = [row for row in rows if f"{row.name}.".startswith(f"{name}.")]
        field = members[-1].receptive_field
        lines.append(f"| {name} | {_shape(members[-1])} | {field} | {_operations(members)} |")
    return "\n".join([*lines, f"| in all | | | {_operations(rows)} |"]) + "\n"


def _rows_000() -> list[Row]:
    name = "davidnet-random-cutout"
    rows = _layers(name)
    counts = {row.parameters for row in rows}
    found = [count for count in ROWS_000 if count in counts]
    norms = sum(row.parameters for row in rows if row.kind == "batch norm")
    (pool,) = [row.kind for row in rows if row.name == "pool"]
    return [
        ("parameters", "6,574,090", f"{_parameters(rows):,}"),
        ("the rows of its table, added up", "6,574,090", f"{sum(ROWS_000):,}"),
        ("rows of its table that a layer has", "all", f"{len(found)} of {len(ROWS_000)}"),
        ("parameters of batch norm", "not listed", f"{norms:,}"),
        ("convolutions", "18 (9 in its table)", str(_count(rows, "conv"))),
        ("residual blocks", "4", str(_count(rows, "add"))),
        ("receptive field after its residual block of 128 channels", "5", _field(name, "layer1")),
        ("receptive field at 256 channels", "9", _field(name, "layer2")),
        ("receptive field after its residual block of 512 channels", "17", _field(name, "layer3")),
        ("receptive field after the last pool", "32", _field(name, "pool")),
        ("the last pool", "average", pool),
    ]


def _rows_001() -> list[Row]:
    name = "davidnet-sgd"
    rates, table = _rates(name), _table(name)
    best = 0.0001 + 0.00099 * TEST_001.index(max(TEST_001))
    times = book.find(name).schedule.lr_peak / best
    per_epoch, top = table.steps_per_epoch, table.epoch(rates.index(max(rates)))
    batches = -(-TEST // book.find(name).batch_size)
    ends = f"{_field(name, 'prep')} and {_field(name, 'fc')}"
    return [
        ("parameters", "", f"{_parameters(_layers(name)):,}"),
        ("receptive field, smallest and largest", "3 and 88", ends),
        ("peak rate over the best of its range test", f"0.04006, {best:.5f}", f"{times:.2f}"),
        ("highest rate of a step", "0.04006, at epoch 5", f"{max(rates):.6f}, in epoch {top}"),
        ("first rate", "0.01 (the optimizer's)", f"{rates[0]:.6f}"),
        *(
            (f"rate in epoch {epoch}", rate, f"{rates[epoch * per_epoch]:.6f}")
            for epoch, rate in LOG_001.items()
        ),
        ("momentum", "0.85 to 0.95; 0.9", f"{table.momentum(0, 0.9)}, always"),
        ("test accuracy", "92.22 %", f"{sum(CLASSES_001) / CLASSES:.2f} %, the classes' mean"),
        ("test loss, an image", "0.0004", f"{0.0004 * TEST / batches:.1f}, as a mean of batches"),
    ]


def _rows_002() -> list[Row]:
    name = "davidnet-dropout"
    augment, rates = book.find(name).augment, _rates(name)
    rows = _layers(name, "model.dropout=0.5")
    rows = [row for row in rows if row.kind not in ("standardize", "add")]
    printed = [row.split() for row in TABLE_002.replace("\n", " ").split(",")]
    found = [(_shape(row, "x"), str(row.parameters)) for row in rows]
    same = [row for row, ours in zip(printed, found, strict=True) if tuple(row[1:]) == ours]
    passed = 2 * sum(row.activation_mb for row in rows)
    return [
        ("parameters", "6,573,120", f"{_parameters(rows):,}"),
        ("rows of its table that a layer has", "all", f"{len(same)} of {len(printed)}"),
        ("size of the parameters", "25.07 MB", _size(4e-6 * _parameters(rows))),
        ("forward and backward pass of an image", "8.00 MB", _size(passed)),
        ("padding on each side", "4", f"{augment.pad} (its code pads to 36)"),
        ("images that are cut", "all", f"{augment.cutout_probability:.0%} (its code)"),
        ("last rate over first", "1 (no annihilation)", f"{rates[-1] / rates[0]:.3g} (its code)"),
        ("its rate in its range test, 0.03 to 10", "", _iteration(name, 0.03, 10, 200)),
    ]


def _rows_003() -> list[Row]:
    name = "davidnet-reflect"
    rates, pad = _rates(name), book.find(name).augment.pad
    least = log(1 + (CLASSES - 1) / exp(1))
    return [
        ("parameters", "6,573,130", f"{_parameters(_layers(name)):,}"),
        ("smallest rate", "5.21e-05", f"{min(rates):.3g} (its code)"),
        ("last rate over first", "1 (no annihilation)", f"{rates[-1] / rates[0]:.3g} (its code)"),
        ("padding on each side", "4", f"{pad} (its code pads to 36)"),
        ("batches of an epoch", "98", str(_table(name).steps_per_epoch)),
        ("its rate in its range test, 1e-7 to 10", "", _iteration(name, 1e-7, 10, 100)),
        (
            "last training loss, with a softmax before the cross-entropy",
            '"0.07%"',
            f"{least:.4f} at least: there was no softmax",
        ),
    ]


def _rows_004() -> list[Row]:
    name = "davidnet-gap"
    rates, rows = _rates(name), _layers(name)
    shapes = [_shape(row) for row in rows if row.name.startswith("pool")]
    return [
        ("parameters", "", f"{_parameters(rows):,}"),
        ("maps after MaxPool4, and after the average pool", "", ", ".join(shapes)),
        ("highest rate", "0.126", f"{max(rates):.3g}"),
        ("smallest rate", "0.0126", f"{min(rates):.3g}"),
        ("its rate in its range test, 0.1 to 1", "", _iteration(name, 0.1, 1, 100)),
    ]


def _iteration(name: str, start: float, end: float, count: int) -> str:
    """Where the peak rate lies in a test of `count` exponentially spaced rates."""
    place = log(book.find(name).schedule.lr_peak / start) / log(end / start) * (count - 1)
    return f"iteration {round(place)} of {count}"


def _size(megabytes: float) -> str:
    return f"{megabytes:.2f} MB, {megabytes * 1e6 / 2**20:.2f} MiB"


def _shape(row: anatomy.Layer, between: str = " x ") -> str:
    return between.join(str(size) for size in row.shape)


@cache
def _layers(name: str, *changes: str) -> list[anatomy.Layer]:
    recipe = book.change(book.find(name), list(changes))
    with torch.device("meta"):
        return anatomy.layers(build(recipe.model, noise(CLASSES, SIZE), seed=0), SIZE)


def _table(name: str) -> Timetable:
    return timetable(book.find(name), TRAIN)


def _rates(name: str) -> list[float]:
    table = _table(name)
    return [table.lr(step) for step in range(table.total_steps)]


def _parameters(rows: list[anatomy.Layer]) -> int:
    return sum(row.parameters for row in rows)


def _operations(rows: list[anatomy.Layer]) -> str:
    return f"{sum(row.multiply_adds for row in rows) / 1e6:.1f}"


def _field(name: str, stage: str) -> str:
    rows = [row for row in _layers(name) if f"{row.name}.".startswith(f"{stage}.")]
    return str(rows[-1].receptive_field)


def _count(rows: list[anatomy.Layer], kind: str) -> int:
    return sum(row.kind.startswith(kind) for row in rows)


if __name__ == "__main__":
    main()
