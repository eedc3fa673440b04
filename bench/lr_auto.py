"""Is the peak rate that a range test finds as good as the best of several picked by hand?

Trains davidnet for each optimizer and seed with every hand-picked peak, and with the peak that
`--lr auto` finds with that seed. All are judged on validation images held out of the training
part; the test part is never read. A picked peak that the first seed finds far below the best is
tried with no other. A finished run is one JSON in the results folder, so that the bench goes on
where it was stopped. It says what is left to pay at most, and ends with two tables: found against
picked, with the 95 % interval of the difference over the seeds; and what each known rule would have
given, read off the hand-picked runs between the peaks.

usage: python bench/lr_auto.py --data PATH --results DIR [--width 32] [--epochs 6] [--batch 512]
           [--fraction-of-data 1] [--seeds 3] [--optimizers adam sgd] [--precision auto]
           [--threads N] [--tables-only]
"""

import argparse
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from onecycle import files, machine
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.run import estimate, find_lr
from onecycle.run.job import Job
from onecycle.run.range_test import choose_sweep
from onecycle.training import state as states
from onecycle.training.loop import fit

VAL_FRACTION = 0.1
SETTINGS = "settings.json"
FAR = 0.15  # below the first seed's best; seeds of good peaks were seen 0.10 apart
ADAM = "{momentum=0.9,beta2=0.999,eps=1e-8}"
GROUPS = 'groups=[{match="*.norm.*",optimizer="%s"},{match="*",optimizer="%s",weight_decay=%g}]'
# What makes the recipe one of each optimizer, and the peaks picked by hand.
OPTIMIZERS: dict[str, tuple[list[str], list[float]]] = {
    "adamw": ([], [5e-4, 1.6e-3, 5e-3, 1.6e-2, 5e-2, 1.6e-1]),
    "adam": (
        [f"optimizers={{adam={ADAM}}}", GROUPS % ("adam", "adam", 1e-4)],
        [5e-4, 1.6e-3, 5e-3, 1.6e-2, 5e-2, 1.6e-1],
    ),
    "sgd": (
        ["optimizers={sgd={momentum=0.9,nesterov=true}}", GROUPS % ("sgd", "sgd", 5e-4)],
        [3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0],
    ),
}


@dataclass(frozen=True)
class Settings:
    """What all runs of a results folder have in common."""

    data: str
    width: int
    epochs: float
    batch: int
    fraction_of_data: float


@dataclass(frozen=True)
class Trial:
    """One run: an optimizer, a seed, and a peak picked by hand, or None for the one to be found."""

    optimizer: str
    seed: int
    peak: float | None

    @property
    def file(self) -> str:
        """What its result is called."""
        peak = "auto" if self.peak is None else f"{self.peak:g}"
        return f"{self.optimizer}-{peak}-seed{self.seed}.json"


def recipe_for(optimizer: str, settings: Settings, lr: float | None = None) -> Recipe:
    """The recipe of every trial with `optimizer`, with the peak `lr`."""
    changes = [f"model.width={settings.width}", f"batch_size={settings.batch}"]
    changes += OPTIMIZERS[optimizer][0]
    return book.change(book.find("davidnet"), changes, settings.epochs, lr)


def part_of(data: Dataset, fraction: float) -> Dataset:
    """`data` with a validation part, and `fraction` of the rest to train on."""
    held = data.hold_out(VAL_FRACTION, seed=0)
    if fraction == 1:
        return held
    return replace(replace(held, val=None).hold_out(1 - fraction, seed=0), val=held.val)


def run(trial: Trial, settings: Settings, data: Dataset, where: machine.Machine) -> dict[str, Any]:
    """Find the peak if there is none, train, judge. Where none is found, nothing is right."""
    start = time.monotonic()
    recipe, found = recipe_for(trial.optimizer, settings, trial.peak), None
    accuracy = 0.0
    if trial.peak is None:
        job = Job(recipe, replace(data, val=None), where, trial.seed, Path())
        sweep = choose_sweep(recipe, len(data.train))
        curves = find_lr.curves(job, [trial.seed], sweep, lambda *_: None)
        found = find_lr.judge(curves, sweep, recipe)
        recipe = recipe_for(trial.optimizer, settings, found["lr_max"])
    seconds_to_find = time.monotonic() - start
    if found is None or found["lr_max"]:
        accuracy = train(recipe, trial.seed, data, where)
    return {
        **asdict(trial),
        "accuracy": accuracy,
        "found": found,
        "seconds": round(time.monotonic() - start, 1),
        "seconds_to_find": round(seconds_to_find, 1),
        "machine": where.to_dict(),
    }


def train(recipe: Recipe, seed: int, data: Dataset, where: machine.Machine) -> float:
    """Accuracy on the validation part after training; 0 if the weights are no longer finite."""
    state = states.create(recipe, data, where, seed)
    for _ in fit(state, data, recipe, where, seed):
        pass
    assert data.val is not None
    predicted = probabilities(state.model, data.val, where)
    if not np.isfinite(predicted).all():
        return 0.0
    return metrics.accuracy(predicted, data.val.labels)


def difference(results: list[dict[str, Any]], optimizer: str) -> str:
    """A row: the best mean of the hand-picked peaks, that of the found ones, and their difference.

    The interval is Student's over the seeds, of pairs with the same seed.
    """
    mine = [result for result in results if result["optimizer"] == optimizer]
    found = {r["seed"]: r["accuracy"] for r in mine if r["peak"] is None}
    by_peak = {
        peak: {r["seed"]: r["accuracy"] for r in mine if r["peak"] == peak}
        for peak in OPTIMIZERS[optimizer][1]
    }
    whole = {peak: runs for peak, runs in by_peak.items() if found and set(found) <= set(runs)}
    if not whole:
        return f"| {optimizer} | | | | | |"
    best = max(whole, key=lambda peak: np.mean([whole[peak][seed] for seed in found]))
    pairs = [100 * (found[seed] - whole[best][seed]) for seed in sorted(found)]
    half = math.nan
    if len(pairs) > 1:
        error = np.std(pairs, ddof=1) / math.sqrt(len(pairs))
        half = float(stats.t.ppf(0.975, len(pairs) - 1) * error)
    peaks = [r["found"]["lr_max"] or "-" for r in mine if r["peak"] is None]
    mean, picked = np.mean(list(found.values())), np.mean([whole[best][s] for s in found])
    return (
        f"| {optimizer} | {best:g} | {100 * picked:.2f} | {', '.join(map(str, peaks))} "
        f"| {100 * mean:.2f} | {np.mean(pairs):+.2f} ± {half:.2f} |"
    )


def rules(results: list[dict[str, Any]], optimizer: str) -> list[str]:
    """Rows: for each rule, its peaks and the accuracy that the hand-picked runs have there.

    The accuracy is read off the straight lines between the runs of the same seed, over the
    logarithm of the peak; there is none if a peak lies outside of them or was refused.
    """
    mine = [result for result in results if result["optimizer"] == optimizer]
    peaks: dict[str, list[float]] = {}
    accuracies: dict[str, list[float]] = {}
    for test in (r for r in mine if r["peak"] is None):
        of_seed = [r for r in mine if r["seed"] == test["seed"] and r["peak"]]
        picked = sorted((r["peak"], r["accuracy"]) for r in of_seed)
        for each in test["found"]["suggestions"]:
            lr = each["lr"] or math.nan
            x, y = np.log([peak for peak, _ in picked]), [seen for _, seen in picked]
            seen = float(np.interp(math.log(lr), x, y, left=math.nan, right=math.nan))
            peaks.setdefault(each["rule"], []).append(lr)
            accuracies.setdefault(each["rule"], []).append(100 * seen)
    return [
        f"| {optimizer} | {rule} | {', '.join(f'{lr:.2g}' for lr in lrs)} "
        f"| {np.mean(accuracies[rule]):.2f} |".replace("nan", "-")
        for rule, lrs in peaks.items()
    ]


def tables(folder: Path, optimizers: list[str]) -> str:
    """Both tables of the results in `folder`."""
    names = sorted(path for path in folder.glob("*-seed*.json"))
    results = [files.read_json(path) for path in names]
    lines = [
        "| optimizer | best picked peak | its val % | peaks found | their val % | difference |",
        "|---|---|---|---|---|---|",
        *(difference(results, optimizer) for optimizer in optimizers),
        "",
        "| optimizer | rule | peaks | val % between the picked ones |",
        "|---|---|---|---|",
        *(row for optimizer in optimizers for row in rules(results, optimizer)),
    ]
    return "\n".join(lines)


def main() -> None:
    """Do what is left to do, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--fraction-of-data", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=["adam", "sgd"])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tables-only", action="store_true")
    options = parser.parse_args()
    if not options.tables_only:
        work(options)
    print(tables(options.results, options.optimizers))


def work(options: argparse.Namespace) -> None:
    """Every run that has no result yet; the seeds in turn, so that early tables are fair."""
    settings = Settings(
        options.data, options.width, options.epochs, options.batch, options.fraction_of_data
    )
    folder = files.make_folder(options.results)
    if (folder / SETTINGS).exists() and files.read_json(folder / SETTINGS) != asdict(settings):
        raise SystemExit(f"{folder} holds runs with other settings: see its {SETTINGS}")
    files.write_json(folder / SETTINGS, asdict(settings))
    trials = [
        Trial(optimizer, seed, peak)
        for seed in range(options.seeds)
        for optimizer in options.optimizers
        for peak in (*OPTIMIZERS[optimizer][1], None)
    ]
    left = [trial for trial in trials if not (folder / trial.file).exists()]
    if not left:
        return
    where = machine.choose("auto", options.precision, options.threads)
    data = part_of(load(options.data), options.fraction_of_data)
    each = estimate.seconds(recipe_for(left[0].optimizer, settings), data, where)
    tests = sum(trial.peak is None for trial in left)
    cost = each * (len(left) + tests / settings.epochs) / 3600
    print(f"{len(left)} of {len(trials)} runs are left, at most {cost:.2g} h on {where.describe()}")
    for trial in left:
        if hopeless(trial, folder):
            continue
        result = run(trial, settings, data, where)
        files.write_json(folder / trial.file, result)
        print(f"{trial.file}: {result['accuracy']:.2%} in {result['seconds']} s", flush=True)


def hopeless(trial: Trial, folder: Path) -> bool:
    """Whether the first seed says that the peak of `trial` can't be the best."""
    if trial.seed == 0 or trial.peak is None:
        return False
    first = {
        peak: files.read_json(folder / Trial(trial.optimizer, 0, peak).file)["accuracy"]
        for peak in OPTIMIZERS[trial.optimizer][1]
    }
    return bool(first[trial.peak] < max(first.values()) - FAR)


if __name__ == "__main__":
    main()
