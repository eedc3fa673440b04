"""`onecycle ablate`."""

import json
from typing import Annotated, Any

from cyclopts import Parameter

import onecycle
from onecycle.cli.app import Flag, Json, Quiet, Set, app


@app.command
def ablate(
    *,
    recipe: str | None = None,
    data: str = "digits",
    ingredients: Annotated[list[str] | None, Parameter(negative=())] = None,
    epochs: float | None = None,
    set_: Set = None,
    seed: int = 0,
    seeds: int = 3,
    val_fraction: float | None = None,
    skip_bad: Flag = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Leave out each ingredient of a recipe in turn, and show what it is worth.

    Parameters
    ----------
    recipe:
        A name that 'onecycle recipes' lists, or a TOML file; its table [ingredients] names what
        can be left out.
    data:
        As in 'onecycle train'.
    ingredients:
        Only these: --ingredients cutout --ingredients flip.
    epochs:
        How long, fractions allowed; the peak of the rate stays at the same fraction.
    set_:
        Change a number of the recipe: --set model.width=32 --set augment.cutout=12.
    seed:
        The first seed.
    seeds:
        How many; every variant is trained with each of them.
    val_fraction:
        The part of the training images that is held out to judge on, in place of the test part;
        by default 0.1, or nothing where the data has a validation part.
    skip_bad:
        Leave out images that can't be used; each of them is an error otherwise.
    image_size:
        Bring pictures to this many pixels, 16 to 128.
    device:
        auto, cpu, cuda or mps.
    precision:
        auto (whatever the machine is fast at), bf16, fp16 or fp32.
    threads:
        CPU threads; all cores by default.
    out:
        The folder; by default the next free runs/RECIPE-ablation-N. If this ablation was begun
        there, it goes on.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    found = onecycle.ablate(
        recipe,
        data,
        ingredients=ingredients or (),
        epochs=epochs,
        settings=set_ or (),
        seed=seed,
        seeds=seeds,
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
        print(json.dumps(found.summary))
    else:
        _print(found.summary, str(found.path))


def _print(summary: dict[str, Any], folder: str) -> None:
    from onecycle.reporting.tables import text

    whole = summary["whole"]
    print(f"{summary['recipe']} whole: {whole['mean']:.2%} on validation images, n = {whole['n']}")
    rows = []
    for row in sorted(summary["ingredients"], key=lambda row: -row["worth"]["mean"]):
        found = row["worth"]
        ends = "" if found["low"] is None else f"{100 * found['low']:+.2f} to "
        ends += "" if found["high"] is None else f"{100 * found['high']:+.2f}"
        rows.append(
            {
                "without": row["ingredient"],
                "points lost": f"{100 * found['mean']:+.2f}",
                "95 % interval": ends,
                "settings": " ".join(row["settings"]),
            }
        )
    print(text(rows, {"points lost"}))
    print(f"drawn in {folder}/ablation.png")
