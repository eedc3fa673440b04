"""One run: begun, or gone on with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from onecycle import files, machine, progress
from onecycle.api.handle import Run
from onecycle.api.lr import with_found_rates
from onecycle.api.setup import Setup
from onecycle.errors import DataError, DiskError, RecipeError
from onecycle.ranks import ALONE, Ranks, join, loss_of_others, restarts
from onecycle.recipe.schema import Recipe
from onecycle.reporting import plots
from onecycle.run import environment, estimate, record, reopen
from onecycle.run.checkpoint import Checkpoint, newest
from onecycle.run.conduct import conduct
from onecycle.run.events import EpochDone
from onecycle.run.initial import initial
from onecycle.run.job import Job
from onecycle.run.memory import explained
from onecycle.run.tracking import tracking
from onecycle.training.schedule import growth, timetable


def train(setup: Setup, seed: int, out: Path | None, show: progress.Show, again: str = "") -> Run:
    """Train `setup` with `seed` into the new folder `out`. Raises as `onecycle.train`.

    `again` is the command that goes on with it, if it isn't the run's own.
    """
    dataset, where, ranks = setup.open(seed, show)
    begin = initial(Path(setup.init), setup.recipe, dataset) if setup.init else None
    folder = ranks.in_turn(lambda: _folder(setup.recipe, out, ranks))
    job = Job(
        setup.recipe,
        dataset,
        where,
        seed,
        folder,
        ranks,
        setup.save_every,
        begin,
        setup.track,
        augment_backend=setup.augment_backend,
        max_memory=setup.max_memory,
        again=again,
    )
    with _one_writer(folder, ranks):
        if ranks.first:
            record.check_empty(folder)  # another run may have been quicker, and be over
        if setup.lr_auto:
            job = replace(job, recipe=with_found_rates(job, show))
        if ranks.first:
            environment.describe(job, setup.val_fraction, **setup.reading)
        with explained(job.recipe, where):
            expected = estimate.seconds(job.recipe, dataset, where, job.feed(seed)) / ranks.world
        show.started(job, expected)
        if begin:
            show.note(begin.describe())
        return drive(job, None, show)


def resume(
    folder: Path,
    show: progress.Show,
    threads: int | None = None,
    force: bool = False,
    again: str = "",
) -> Run:
    """Go on with the run in `folder`, `again` as in `train`. Raises as `onecycle.resume`."""
    reopen.begun(folder)
    made = files.read_json(folder / record.ENVIRONMENT)
    try:
        then = made["machine"]
        where = machine.choose(
            then["device"], then["precision"], then["threads"] if threads is None else threads
        )
        seed, save_every, track = int(made["seed"]), made.get("save_every"), made.get("track")
        backend, room = made.get("augment_backend", "own"), made.get("max_memory")
        made["versions"] = {
            **environment.surroundings(where, ALONE)["versions"],
            **made.get("versions", {}),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DiskError(f"cannot read {folder / record.ENVIRONMENT}: it is damaged") from error
    ranks = join(where.device)
    ranks.agree(goes_on=True)
    if not ranks.first:
        show.hush()
    with _one_writer(folder, ranks):
        if (folder / record.SUMMARY).exists():
            raise RecipeError(f"--resume {folder}: this run is finished; start a new one")
        checkpoint = newest(folder)
        recipe = Run(folder).recipe
        changed = environment.changed(made, checkpoint, recipe, where, ranks)
        if changed and not force:
            raise RecipeError(
                f"--resume {folder}: {'; '.join(changed)}: put that back, or go on all the same "
                "with --force (its bits will not be those of a run never stopped)"
            )
        dataset = ranks.in_turn(lambda: reopen.dataset(folder, None, show.decoded, show.downloaded))
        if dataset.digest != checkpoint.extra["data_digest"]:
            if not force:
                raise DataError(
                    f"--resume {folder}: {dataset.source} is not the data that it was trained on: "
                    "put that back, or go on all the same with --force"
                )
            reopen.check_fits(folder, dataset)
            changed.append("other data")
        if changed and ranks.first:
            # The weights go on being for the statistics that they were begun with.
            known = {k: v for k, v in made["data"].items() if k in ("mean", "std")}
            made["data"] |= environment.data_facts(dataset) | known
            made["forced"] = [*made.get("forced", ()), *changed]
            files.write_json(
                folder / record.ENVIRONMENT, made | environment.surroundings(where, ranks)
            )
        job = Job(
            recipe,
            dataset,
            where,
            seed,
            folder,
            ranks,
            save_every,
            track=track,
            augment_backend=backend,
            max_memory=room,
            forced=tuple(changed),
            again=again,
        )
        show.resumed(job, checkpoint)
        return drive(job, checkpoint, show)


@contextmanager
def _one_writer(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the run folder inside the block, and take leave of other processes after it."""
    lock = files.FolderLock(folder) if ranks.first else None
    try:
        yield
    finally:
        if lock:
            lock.release()
        ranks.leave()


def _folder(recipe: Recipe, out: Path | None, ranks: Ranks) -> Path:
    """The run folder, made by the first process."""
    if ranks.first and out is not None and restarts():
        record.forget_unsaved(out)
    if ranks.first or out is None:
        return record.new_folder(recipe.name, out)
    return out


def drive(job: Job, checkpoint: Checkpoint | None, show: progress.Show) -> Run:
    """Conduct `job`, from `checkpoint` if given, show it, and draw its curves."""
    last = timetable(job.recipe, len(job.dataset.train)).total_steps
    with (
        show,
        loss_of_others(),
        explained(job.recipe, job.machine),
        tracking(job, checkpoint) as track,
    ):
        for event in conduct(job, checkpoint):
            track(event)
            show.event(event)
            # Before the summary makes the run a finished one, which nothing completes any more.
            if isinstance(event, EpochDone) and event.row["step"] == last and job.ranks.first:
                _draw(job)
    return Run(job.folder)


def _draw(job: Job) -> None:
    sizes = growth(job.recipe, len(job.dataset.train), job.dataset.image_size)
    plots.save(plots.curves(record.read_metrics(job.folder), sizes), job.folder / record.CURVES)
