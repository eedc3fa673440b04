"""`onecycle train`."""

import inspect
import json
from typing import Any

from onecycle.cli.app import Json, Quiet, Set, app
from onecycle.errors import RecipeError


@app.command
def train(
    *,
    recipe: str | None = None,
    data: str = "digits",
    epochs: float | None = None,
    lr: str | None = None,
    set_: Set = None,
    seed: int = 0,
    val_fraction: float = 0.0,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | None = None,
    resume: str | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train a recipe on data; the run folder holds all there is to know about it.

    Parameters
    ----------
    recipe:
        A name that 'onecycle recipes' lists, a TOML file, or a run's recipe.json; by default the
        one made for the data.
    data:
        'digits' (embedded), 'cifar10', 'cifar100', 'cifar100-coarse' (20 superclasses), or the
        path of a folder, .zip or .tar.* with train/CLASS/* and test/CLASS/* images, or of CIFAR
        as published.
    epochs:
        How long, fractions allowed; the peak of the rate stays at the same fraction.
    lr:
        The peak of the rate, from which the other rates keep their distance; 'auto': find it first,
        as 'onecycle find-lr' does, in at most about an epoch's time.
    set_:
        Change a number of the recipe: --set model.width=32 --set schedule.lr_peak=2e-3.
    seed:
        Of the first weights, the order, the augmentation and the held-out part.
    val_fraction:
        Hold out this part of the training images and judge each epoch on it instead.
    device:
        auto, cpu, cuda or mps.
    precision:
        auto (whatever the machine is fast at), bf16, fp16 or fp32.
    threads:
        CPU threads; all cores by default.
    out:
        The run folder; by default the next free runs/RECIPE-N.
    resume:
        Go on with this unfinished run; no other option but -q and --json goes with it.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    options = dict(locals())
    if resume is not None:
        _only_resume(options)
    from onecycle import api

    if resume is not None:
        run = api.resume(resume, quiet=quiet)
    else:
        run = api.train(
            recipe,
            data,
            epochs=epochs,
            lr=lr,
            settings=set_ or (),
            seed=seed,
            val_fraction=val_fraction,
            device=device,
            precision=precision,
            threads=threads,
            out=out,
            quiet=quiet,
        )
    _print_run(run.summary, as_json=json_)


def _only_resume(options: dict[str, Any]) -> None:
    """RecipeError if anything that a run has already is given beside --resume."""
    defaults = inspect.signature(train).parameters
    for name, value in options.items():
        if name not in ("resume", "quiet", "json_") and value != defaults[name].default:
            option = name.strip("_").replace("_", "-")
            raise RecipeError(f"--resume takes everything from the run: leave out --{option}")


def _print_run(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary))
        return
    print(f"run             {summary['run']}")
    print(f"recipe          {summary['recipe']} ({summary['recipe_digest']})")
    print(f"data            {summary['data']}")
    print(
        f"test accuracy   {summary['test_accuracy']:.2%}  (final epoch, no test-time augmentation)"
    )
    if "val_accuracy" in summary:
        print(f"val accuracy    {summary['val_accuracy']:.2%}")
    print(f"train accuracy  {summary['train_accuracy']:.2%}  (gap {summary['gap']:+.2%})")
    print(f"seconds         {summary['seconds']:.0f}  (training {summary['train_seconds']:.0f})")
    if summary["data"] == "digits":
        print("next, CIFAR-10: ./run.sh --data cifar10  (or 'onecycle train --data cifar10')")
