"""`onecycle train`."""

import inspect
import json
import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import onecycle
from onecycle.cli.app import Flag, Json, Quiet, Set, app
from onecycle.errors import RecipeError

Resume = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=(0, 1))]
BESIDE_RESUME = ("resume", "threads", "force", "quiet", "json_")


@app.command
def train(
    *,
    recipe: str | None = None,
    data: str = "digits",
    epochs: float | None = None,
    lr: str | None = None,
    init: str | None = None,
    set_: Set = None,
    seed: int = 0,
    seeds: int | None = None,
    val_fraction: float = 0.0,
    skip_bad: Flag = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    save_every: str | None = None,
    track: Literal["tensorboard"] | None = None,
    augment_backend: str = "own",
    max_memory: str | None = None,
    out: str | None = None,
    resume: Resume = None,
    force: Flag = False,
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
        path of a folder, .zip or .tar.* of pictures, as train/CLASS/* (and val, test) or CLASS/*,
        of a .csv with path,label[,split], or of CIFAR as published. Where there is no test part,
        a fifth of each class is drawn as it, always the same.
    epochs:
        How long, fractions allowed; the peak of the rate stays at the same fraction.
    lr:
        The peak of the rate, from which the other rates keep their distance; 'auto': find it first,
        as 'onecycle find-lr' does, in at most about an epoch's time; not for recipes with Muon.
    init:
        Begin with the final weights of this run folder, or of a network that comes with the
        package; the last layer begins anew where the classes differ.
    set_:
        Change a number of the recipe: --set model.width=32 --set augment.cutout=12.
    seed:
        Of the first weights, the order, the augmentation and the held-out part.
    seeds:
        Train that many seeds, from --seed on, under one folder, and summarize them.
    val_fraction:
        Hold out this part of the training images and judge each epoch on it instead.
    skip_bad:
        Leave out images that can't be used; each of them is an error otherwise.
    image_size:
        Bring pictures to this many pixels, 16 to 128; by default they keep the one size that they
        have, or one is chosen for them.
    device:
        auto, cpu, cuda or mps.
    precision:
        auto (whatever the machine is fast at), bf16, fp16 or fp32.
    threads:
        CPU threads; all cores by default.
    save_every:
        How often to save, as 100steps, 2epochs, 90s or 5min; by default as often as costs at most
        one per cent of the time, and always at the end and on a signal.
    augment_backend:
        own (gathered on the device), or albumentations (image by image on the CPU, as the
        references do; an extra).
    max_memory:
        What the images may take on a GPU, as 500MB or 2GB; more stay in the cache's file, by
        default more than half of what is free. On a CPU they stay there in any case.
    track:
        Write the figures of every step and epoch into RUN/tensorboard too.
    out:
        The run folder; by default the next free runs/RECIPE-N.
    resume:
        Go on with this unfinished run, or without a name with the newest one under runs/; no other
        option but --threads, --force, -q and --json goes with it.
    force:
        Go on although recipe, data, threads, processes, hardware, torch or numpy have changed.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    options = dict(locals())
    if resume is not None:
        _only_resume(options)
    elif force:
        raise RecipeError("--force goes with --resume")
    from onecycle.ranks import prints

    if resume is not None:
        run = onecycle.resume(next(iter(resume), None), threads=threads, force=force, quiet=quiet)
    else:
        train_one_or_more: Any = onecycle.train  # one or several runs, as the number of seeds says
        run = train_one_or_more(
            recipe,
            data,
            epochs=epochs,
            lr=lr,
            init=init,
            settings=set_ or (),
            seed=seed,
            seeds=seeds,
            val_fraction=val_fraction,
            skip_bad=skip_bad,
            image_size=image_size,
            device=device,
            precision=precision,
            threads=threads,
            save_every=save_every,
            track=track,
            augment_backend=augment_backend,
            max_memory=max_memory,
            out=out,
            quiet=quiet,
        )
    if prints():
        if json_:
            print(json.dumps(run.summary))
        else:
            show = _print_runs if isinstance(run, onecycle.Runs) else _print_run
            show(run.summary)


def _only_resume(options: dict[str, Any]) -> None:
    """RecipeError if anything that a run has already is given beside --resume."""
    defaults = inspect.signature(train).parameters
    named = {word.split("=")[0].replace("_", "-") for word in sys.argv[1:]}
    for name, value in options.items():
        option = "--" + name.strip("_").replace("_", "-")
        # By name too: what is given may be the default, and still not what the run has.
        if name not in BESIDE_RESUME and (option in named or value != defaults[name].default):
            raise RecipeError(f"--resume takes everything from the run: leave out {option}")


def _print_run(summary: dict[str, Any]) -> None:
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


def _print_runs(summary: dict[str, Any]) -> None:
    print(f"runs            {', '.join(summary['runs'])}")
    print(f"recipe          {summary['recipe']} ({summary['recipe_digest']})")
    print(f"data            {summary['data']}")
    for name in ("test", "val", "train"):
        if found := summary.get(f"{name}_accuracy"):
            print(f"{name + ' accuracy':<15} {_spread(found)}")
    print("by class        (share of its test images that are right)")
    for name, figures in summary["per_class"].items():
        print(f"  {name:<13} {_spread(figures['recall']) if figures['recall'] else 'n/a'}")
    print(f"seconds         {summary['seconds']['mean']:.0f} a run")


def _spread(found: dict[str, Any]) -> str:
    if found["std"] is None:
        return f"{found['mean']:.2%}  (one seed)"
    return (
        f"{found['mean']:.2%}  (std {100 * found['std']:.2f} points, 95 % interval of the mean "
        f"{max(found['low'], 0):.2%} to {min(found['high'], 1):.2%}, n = {found['n']})"
    )
