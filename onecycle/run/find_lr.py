"""What a learning-rate range test found: its curves, and the rates that follow from them."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.run.job import Job
from onecycle.run.range_test import Point, Sweep, range_test, steered_test
from onecycle.training import state as states
from onecycle.training import steer, suggest


@dataclass(frozen=True)
class Curve:
    """The range test of one seed: its sweep, in order of the rates, and its steered part."""

    seed: int
    points: tuple[Point, ...]
    steered: tuple[Point, ...] = ()

    @property
    def lrs(self) -> list[float]:
        """The rates."""
        return [point.lr for point in self.points]

    @property
    def losses(self) -> list[float]:
        """The losses that count."""
        return [point.judged[0] for point in self.points]

    @property
    def accuracies(self) -> list[float]:
        """The accuracies that count."""
        return [point.judged[1] for point in self.points]


def curves(
    job: Job, seeds: Iterable[int], sweep: Sweep, seen: Callable[[int, int, Point], None]
) -> list[Curve]:
    """A curve for each of `seeds`, which draw the first weights, the order and the augmentation.

    `seen` is called with the seed, the number of rates done and the newest point.
    """
    found = []
    for seed in seeds:
        state = states.create(job.recipe, job.dataset, job.machine, seed)
        if job.init:
            job.init.put_into(state.model)
        trial = (state, job.dataset, job.recipe, job.machine, seed)
        swept: list[Point] = []
        steered: list[Point] = []
        for point in range_test(*trial, sweep, job.feed(seed)):
            swept.append(point)
            seen(seed, len(swept), point)
        if not sweep.per_epoch:
            for point in steered_test(*trial, job.feed(seed)):
                steered.append(point)
                seen(seed, sweep.steps + len(steered), point)
        found.append(Curve(seed, tuple(swept), tuple(steered)))
    return found


def unjudged(recipe: Recipe) -> str:
    """Why no rule can be trusted to find the peak of `recipe`, or nothing."""
    if any(group.optimizer == "muon" for group in recipe.groups):
        return (
            f"the rules are for sgd, adam and adamw, and no good for muon, by which {recipe.name} "
            "learns: keep its own rate, or give a number"
        )
    return ""


def rows(curve: Curve) -> list[dict[str, float]]:
    """The rows that `lr_find.csv` has of the sweep of `curve`."""
    smooth = suggest.smooth(curve.losses)
    return [
        {**_row(curve.seed, point), "smoothed": smoothed}
        for point, smoothed in zip(curve.points, smooth, strict=True)
    ]


def steered_rows(curve: Curve) -> list[dict[str, float]]:
    """The rows that `lr_steered.csv` has of `curve`."""
    return [_row(curve.seed, point) for point in curve.steered]


def _row(seed: int, point: Point) -> dict[str, float]:
    seen = {key: value for key, value in asdict(point).items() if value is not None}
    return {"seed": seed, **seen}


def found_by_steering(curves: list[Curve]) -> suggest.Suggestion:
    """The rate that each steered part came to; refused where one went astray."""
    for curve in curves:
        lrs = [point.lr for point in curve.steered]
        losses = [point.loss for point in curve.steered]
        why = steer.astray(lrs, losses, [point.update or 0.0 for point in curve.steered])
        if why:
            return suggest.Suggestion(steer.NAME, (), f"not to be had: {why}; name a rate")
    rates = [steer.read([point.lr for point in curve.steered]) for curve in curves]
    return suggest.Suggestion(steer.NAME, tuple(rates))


def judge(curves: list[Curve], sweep: Sweep, recipe: Recipe) -> dict[str, Any]:
    """What `lr_find.json` holds: the rates of each rule, and those for one cycle or why not.

    `lr_max` is the median over the seeds of what the chosen rule finds, to two digits; `lr_min` is
    the start that the recipe's schedule has when its peak is `lr_max` (null where its kind has
    none).
    """
    if sweep.per_epoch:
        tests = [suggest.read_epochs(curve.lrs, curve.accuracies) for curve in curves]
        made = [suggest.suggest(name, rule, tests) for name, rule in suggest.PER_EPOCH.items()]
    else:
        tests = [suggest.read(curve.lrs, curve.losses) for curve in curves]
        known = [suggest.suggest(name, rule, tests) for name, rule in suggest.RULES.items()]
        flat = suggest.flat(tests)
        if flat:
            known = [suggest.Suggestion(each.rule, (), flat) for each in known]
        made = [found_by_steering(curves), *known]
    taken = made[0]
    refused = taken.refused and f"the rate by '{taken.rule}' is {taken.refused}"
    problem = unjudged(recipe) or refused
    # Two digits say all that a test knows, and can be typed.
    lr_max = None if problem or not taken.lr else float(f"{taken.lr:.2g}")
    schedule = book.change(recipe, [], lr=lr_max).to_dict()["schedule"] if lr_max else {}
    return {
        "lr_max": lr_max,
        "lr_min": schedule.get("lr_start"),
        "rule": taken.rule,
        "problem": problem,
        "suggestions": [{**asdict(each), "lr": each.lr} for each in made],
        "sweep": asdict(sweep),
        "seeds": [curve.seed for curve in curves],
        "diverged_at": [test.last if test.diverged else None for test in tests],
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
    }
