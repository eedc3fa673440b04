"""`onecycle find-lr`."""

import json
from typing import Any

import onecycle
from onecycle.cli.app import Flag, Json, Quiet, Set, app


@app.command(name="find-lr")
def find_lr(
    *,
    recipe: str | None = None,
    data: str = "digits",
    epochs: float | None = None,
    set_: Set = None,
    start: float | None = None,
    end: float | None = None,
    steps: int | None = None,
    linear: Flag = False,
    per_epoch: Flag = False,
    seeds: int = 1,
    seed: int = 0,
    val_fraction: float = 0.0,
    skip_bad: Flag = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Find the peak rate: train copies at rising and at steered rates, and plot what they show.

    Parameters
    ----------
    recipe:
        As in 'onecycle train', as are data, epochs, set, skip-bad, image-size, device, precision
        and threads.
    start:
        The first rate.
    end:
        The last rate; a sweep over batches ends earlier if it diverges.
    steps:
        How many rates: batches, by default so many that with the at most 45 steered ones they are
        an epoch's, but 90 to 200; or epochs, by default 10.
    linear:
        Rates evenly apart, not their logarithms.
    per_epoch:
        Each rate for a whole epoch, evenly apart, by default around the recipe's own peak, and
        judged by accuracy.
    seeds:
        Repeat the test with so many seeds, for the spread of what is found.
    seed:
        The first of them.
    val_fraction:
        Hold out this part of the training images and judge each rate of the sweep on it: the test
        takes longer, and batch norm's running statistics lag behind.
    out:
        The folder for lr_find.csv, .png and .json and lr_steered.csv; by default the next free
        runs/RECIPE-lr-N.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    test = onecycle.find_lr(
        recipe,
        data,
        epochs=epochs,
        settings=set_ or (),
        start=start,
        end=end,
        steps=steps,
        linear=linear,
        per_epoch=per_epoch,
        seeds=seeds,
        seed=seed,
        val_fraction=val_fraction,
        skip_bad=skip_bad,
        image_size=image_size,
        device=device,
        precision=precision,
        threads=threads,
        out=out,
        quiet=quiet,
    )
    if json_:
        print(json.dumps({"path": str(test.path), **test.found}))
        return
    if per_epoch:
        _print_table(test.points)
    _print_found(test.found)
    more = "" if per_epoch else " and lr_steered.csv"
    print(f"files           {test.path}/lr_find.csv, .png, .json{more}")
    print(f"next            onecycle train --lr {test.lr_max:g} (and the same options)")


def _print_table(points: list[dict[str, float]]) -> None:
    """The rates and figures of a test per epoch."""
    columns = [key for key in points[0] if key != "smoothed"]
    print(" ".join(f"{column:>12}" for column in columns))
    for row in points:
        print(" ".join(f"{_cell(column, row[column]):>12}" for column in columns))


def _cell(column: str, value: float) -> str:
    if column == "seed":
        return f"{value:.0f}"
    if column.endswith("accuracy"):
        return f"{value:.2%}"
    return f"{value:.4g}"


def _print_found(found: dict[str, Any]) -> None:
    """What each rule suggests, and the rates that are taken."""
    for each in found["suggestions"]:
        said = f"refused: {each['refused']}"
        if not each["refused"]:
            said = f"{each['lr']:.2g}"
            if len(each["lrs"]) > 1:
                said += f"  ({min(each['lrs']):.2g} to {max(each['lrs']):.2g} over the seeds)"
        print(f"{each['rule']:<15} {said}")
    print(f"lr_max          {found['lr_max']:g}  (by {found['rule']})")
    if found["lr_min"]:
        print(f"lr_min          {found['lr_min']:.2g}  (as far below it as in the recipe)")
