"""`onecycle gallery`."""

import inspect
import json
from typing import Any

import onecycle
from onecycle.cli.app import Flag, Json, Quiet, Set, app
from onecycle.errors import RecipeError

FOR_LABEL_ERRORS = ("recipe", "epochs", "set_", "precision")
NOT_FOR_LABEL_ERRORS = ("show", "by", "seed", "cam")


@app.command
def gallery(
    run: str,
    /,
    *,
    count: int = 25,
    show: str = "wrong",
    by: str = "loss",
    seed: int = 0,
    actual: str | None = None,
    predicted: str | None = None,
    cam: Flag = False,
    label_errors: Flag = False,
    recipe: str | None = None,
    epochs: float | None = None,
    set_: Set = None,
    copy: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Show the images that a finished run got wrong, or right, or whose labels are doubtful.

    Pages and a listing are written into RUN/gallery.

    Parameters
    ----------
    run:
        The run folder.
    count:
        How many images at most.
    show:
        wrong, right or all: of the test part.
    by:
        loss or confidence, the highest first, or random.
    seed:
        Of the random order.
    actual:
        Only images of this class.
    predicted:
        Only images taken for this class.
    cam:
        Show beside each where the network looked (Grad-CAM).
    label_errors:
        Show the training images whose labels fit least, as judged by five trainings on four
        fifths of them each.
    recipe:
        What these follow; by default the run's recipe.
    epochs:
        How long each of these is.
    set_:
        Change a number of their recipe, such as --set model.width=16.
    copy:
        Copy the images into this folder too, as ACTUAL/PREDICTED/INDEX-NAME.png.
    device:
        auto, cpu, cuda or mps.
    precision:
        Of the five trainings: auto, bf16, fp16 or fp32.
    threads:
        CPU threads; all cores by default.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    options = dict(locals())
    _check(options, NOT_FOR_LABEL_ERRORS if label_errors else FOR_LABEL_ERRORS)

    common: dict[str, Any] = {
        "actual": actual,
        "predicted": predicted,
        "device": device,
        "threads": threads,
        "quiet": quiet,
    }
    if label_errors:
        found = onecycle.label_errors(
            run,
            count,
            recipe=recipe,
            epochs=epochs,
            settings=set_ or (),
            precision=precision,
            **common,
        )
    else:
        found = onecycle.gallery(run, count, show=show, by=by, seed=seed, cam=cam, **common)
    if copy is not None:
        found.copy(copy)
    found.save()
    if json_:
        print(json.dumps({"title": found.title, "path": str(found.path), "pictures": found.rows}))
    else:
        print(found.title)
        print(f"files  {found.path}")


def _check(options: dict[str, Any], wrong: tuple[str, ...]) -> None:
    """RecipeError if an option of the other kind of gallery is given."""
    defaults = inspect.signature(gallery).parameters
    for name in wrong:
        if options[name] != defaults[name].default:
            option = f"--{name.strip('_')}"
            if options["label_errors"]:
                raise RecipeError(f"{option} does not go with --label-errors: leave it out")
            raise RecipeError(f"{option} goes with --label-errors only: leave it out")
