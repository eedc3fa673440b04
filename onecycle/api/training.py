"""Training as a Python function: a new run or several seeds, or interrupted ones that go on."""

from pathlib import Path
from typing import overload

from onecycle import progress
from onecycle.api import seeds as many
from onecycle.api import single
from onecycle.api.handle import Run
from onecycle.api.lr import peak
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.api.seeds import Runs
from onecycle.api.setup import Setup, check_seed
from onecycle.errors import RecipeError
from onecycle.ranks import restarts, world
from onecycle.recipe.schema import Recipe
from onecycle.run import record
from onecycle.run.checkpoint import has_checkpoint
from onecycle.run.find_lr import unjudged
from onecycle.use.pretrained import run_or_shipped


@overload
def train(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    lr: float | str | None = None,
    init: str | Path | None = None,
    settings: Settings = (),
    seed: int = 0,
    seeds: None = None,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    save_every: str | None = None,
    track: str | None = None,
    augment_backend: str = "own",
    max_memory: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Run: ...


@overload
def train(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    lr: float | str | None = None,
    init: str | Path | None = None,
    settings: Settings = (),
    seed: int = 0,
    seeds: int,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    save_every: str | None = None,
    track: str | None = None,
    augment_backend: str = "own",
    max_memory: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Runs: ...


def train(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    epochs: float | None = None,
    lr: float | str | None = None,
    init: str | Path | None = None,
    settings: Settings = (),
    seed: int = 0,
    seeds: int | None = None,
    val_fraction: float = 0.0,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    save_every: str | None = None,
    track: str | None = None,
    augment_backend: str = "own",
    max_memory: str | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Run | Runs:
    """Train `recipe` (by default the one that the catalogue names for `data`) and return the run.

    `data` is `digits`, `cifar10`, `cifar100`, `cifar100-coarse`, or the path of a folder or archive
    with pictures as `train/<class>/*` (and `val`, `test`) or `<class>/*`, of a CSV file with
    `path,label[,split]`, or of CIFAR as published; where pictures have no test part, a fifth of
    each class is drawn as it, always the same. `epochs` sets the length
    and stretches the schedule with it; `lr` sets the peak of the rate and scales its other rates
    with it, and `auto` has a range test find it first, as `find_lr` does, and keeps that in the run
    folder. `init` is a finished run, or a network that comes with the package, to begin with the
    final weights of; where the classes differ, those of the last layer begin anew, and pixels go on
    being standardized with the statistics that the weights know. `settings` changes the recipe by
    dotted key, as a mapping or as `key=value` texts. With `seeds`, that many runs from `seed` on
    are made under one folder and summarized. `val_fraction` holds out that part of the training
    images and judges each epoch on it, so that the test part is read once, at the end. `skip_bad`
    leaves out pictures that can't be used, each of which is an error otherwise. `image_size` is
    what pictures are brought to, 16 to 128 pixels; by default they keep the one size that they
    have, or one is chosen for them. `save_every` is how often to save, as `100steps`, `2epochs`,
    `90s` or `5min`, by default as often as costs at most one per cent of the time.
    `augment_backend` says what augments: `own`, or `albumentations`, image by image on the CPU, as
    the references do. `max_memory`, such as `2GB`, is what the images may take on a GPU; more of
    them stay in the cache's file, by default more than half of what is free there (for a CPU they
    do in any case). `track="tensorboard"` also writes the run's events into `tensorboard/` of its
    folder. `out` names the run folder, by default the next `runs/<recipe>-<n>`. Progress goes to
    stderr unless `quiet`.

    Raises RecipeError, DataError, DiskError, DivergedError, MissingExtraError for a tracker that
    is not installed, or InterruptedRun after a signal.
    """
    setup = Setup(
        choose_recipe(recipe, data, epochs, settings, peak(lr)),
        str(data),
        val_fraction,
        skip_bad,
        image_size,
        device,
        precision,
        threads,
        lr_auto=lr == "auto",
        save_every=save_every,
        track=track,
        init=str(run_or_shipped(init, "--init")) if init else None,
        augment_backend=augment_backend,
        max_memory=max_memory,
    )
    check_seed(seed, seeds or 1)
    show = progress.Show(quiet)
    folder = Path(out) if out else None
    if setup.lr_auto and (problem := unjudged(setup.recipe)):
        raise RecipeError(f"--lr auto: {problem}")
    if setup.lr_auto and world() > 1:
        raise RecipeError("--lr auto goes without torchrun: onecycle find-lr, then --lr RATE")
    if seeds is not None:
        many.check(seeds, world())
        return many.train(setup, list(range(seed, seed + seeds)), folder, show)
    if world() > 1 and folder is None:
        raise RecipeError("torchrun needs --out, so that all processes and restarts find the run")
    if folder and restarts() and (folder / record.SUMMARY).is_file():
        return Run(folder)  # it died when all was done
    if folder and restarts() and has_checkpoint(folder):
        return single.resume(folder, show)
    return single.train(setup, seed, folder, show)


def resume(
    run: str | Path | None = None,
    *,
    threads: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Run | Runs:
    """Go on with an interrupted run from its newest valid checkpoint as if never stopped.

    On a CPU that holds bitwise. `run` is its folder, by default the unfinished run under `runs/`
    that was written to last; in a folder of several seeds the finished ones are kept and the others
    gone on with. What decides the bits must be as it was: recipe, data, `threads` (by default the
    run's), processes, hardware, torch and numpy; with `force` a run goes on all the same, and says
    so in its journal. Raises OnecycleError if it is finished or has no valid checkpoint, DataError
    if its data has changed, RecipeError if anything else has, or if there is no such run.
    """
    folder = record.newest_unfinished(Path("runs")) if run is None else Path(run)
    show = progress.Show(quiet)
    if (folder / record.SEEDS).is_file():
        if force or threads is not None:
            raise RecipeError(
                f"--resume {folder}: --force and --threads go with one run: name {folder}/seed-N"
            )
        return many.go_on(folder, show)
    return single.resume(folder, show, threads, force)
