"""What each ingredient of a recipe is worth: it is left out, over seeds, on a validation part."""

import shlex
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from onecycle import files, progress
from onecycle.api import seeds as many
from onecycle.api.recipes import Settings, choose_recipe
from onecycle.api.setup import Setup, check_seed
from onecycle.errors import RecipeError, did_you_mean
from onecycle.evaluation.compare import spread
from onecycle.ranks import world
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.reporting import ablation as reporting
from onecycle.reporting import plots
from onecycle.run import record

WHOLE = "whole"  # the folder of the recipe with nothing left out
VAL_FRACTION = 0.1  # of the training images, where the data has no validation part


@dataclass(frozen=True)
class Ablation:
    """A finished ablation: its folder, read when asked."""

    path: Path

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Validation accuracy of the whole recipe, and by ingredient that without it and its worth.

        Each is a spread over the seeds: mean, deviation, 95 % interval of the mean; fractions.
        """
        summary: dict[str, Any] = files.read_json(self.path / record.ABLATION)
        return summary

    def figure(self) -> Figure:
        """What each ingredient is worth in points, with its interval."""
        return reporting.worth(self.summary)


def ablate(
    recipe: str | Recipe | None = None,
    data: str | Path = "digits",
    *,
    ingredients: tuple[str, ...] | list[str] = (),
    epochs: float | None = None,
    settings: Settings = (),
    seed: int = 0,
    seeds: int = 3,
    val_fraction: float | None = None,
    skip_bad: bool = False,
    image_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
) -> Ablation:
    """Train `recipe` whole and without each of its ingredients, and return what each is worth.

    The recipe names its ingredients and the settings that leave each out; `ingredients` chooses
    some of them. Every variant is trained with the same `seeds` seeds from `seed` on and judged
    on the data's validation part, or on the same held-out `val_fraction` of the training images (by
    default 0.1), so that differences are taken seed by seed. `out` names the folder, by default the
    next `runs/<recipe>-ablation-<n>`; an `out` in which the same ablation was begun is gone on
    with. The other arguments are as in `train`.

    Raises RecipeError for a recipe without ingredients or an unknown one, and as `train`.
    """
    chosen = choose_recipe(recipe, data, epochs, settings)
    left_out = _variants(chosen, list(ingredients))
    many.check(seeds, world())
    check_seed(seed, seeds)
    if val_fraction == 0:
        raise RecipeError("--val-fraction 0: an ablation is judged on held-out training images")
    show = progress.Show(quiet)
    setup = Setup(chosen, str(data), 0.0, skip_bad, image_size, device, precision, threads)
    dataset = setup.open(seed, show)[0]
    if val_fraction is None:
        val_fraction = 0.0 if dataset.val else VAL_FRACTION
    if val_fraction:  # what is wrong with it is told before a folder is made
        dataset.hold_out(val_fraction, seed)
    setup = replace(setup, val_fraction=val_fraction)
    every = list(range(seed, seed + seeds))
    folder = _folder(
        setup, {"seeds": every, "variants": list(left_out)}, Path(out) if out else None
    )
    setup = setup.settled()
    again = f"the same onecycle ablate with --out {shlex.quote(str(folder))}"
    show.note(f"{folder}: {len(left_out)} variants, {seeds} seeds each")
    for name, variant in left_out.items():
        show.note(f"{name} ({variant.digest()})")
        place = folder / name
        if (place / record.SEEDS).is_file():
            many.go_on(place, show, again, dataset.digest)
        else:
            variation = setup.with_recipe(variant)
            many.train(variation, every, place, show, again, dataset.digest)
    files.write_json(folder / record.ABLATION, _summarize(chosen, folder, left_out))
    found = Ablation(folder)
    plots.save(found.figure(), folder / "ablation.png")
    return found


def _variants(recipe: Recipe, ingredients: list[str]) -> dict[str, Recipe]:
    """The whole recipe, and the recipe without each of the `ingredients` (all if none is named)."""
    known = recipe.ingredients
    if not known:
        raise RecipeError(f"recipe {recipe.name} names no ingredients that could be left out")
    for name in ingredients:
        if name not in known:
            raise RecipeError(
                f"recipe {recipe.name} has no ingredient '{name}'{did_you_mean(name, known)}: "
                f"{', '.join(known)}"
            )
    found = {WHOLE: recipe}
    for name in ingredients or known:
        without = book.change(recipe, list(known[name]))
        if without is recipe:
            raise RecipeError(f"recipe {recipe.name} is already without its '{name}'")
        found[f"without-{name}"] = without
    return found


def _folder(setup: Setup, wanted: dict[str, Any], out: Path | None) -> Path:
    """A new folder for the ablation, or `out` if this very one was begun there."""
    content = {"recipe": setup.recipe.digest(), "setup": setup.to_dict(), **wanted}
    if out and (out / record.ABLATION_ASKED).is_file():
        if files.read_json(out / record.ABLATION_ASKED) != content:
            raise RecipeError(f"--out {out} holds another ablation: choose another folder")
        return out
    folder = record.new_folder(f"{setup.recipe.name}-ablation", out)
    files.write_json(folder / record.ABLATION_ASKED, content)
    return folder


def _summarize(recipe: Recipe, folder: Path, variants: dict[str, Recipe]) -> dict[str, Any]:
    accuracies = {
        name: [run.summary["val_accuracy"] for run in many.Runs(folder / name).runs]
        for name in variants
    }
    whole = accuracies.pop(WHOLE)
    one = many.Runs(folder / WHOLE).runs[0].summary
    return {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "data": one["data"],
        "data_digest": one["data_digest"],
        "epochs": one["epochs"],
        "whole": asdict(spread(whole)),
        "ingredients": [
            {
                "ingredient": name.removeprefix("without-"),
                "settings": list(recipe.ingredients[name.removeprefix("without-")]),
                "without": asdict(spread(values)),
                # Seed by seed: the same first weights and the same held-out images.
                "worth": asdict(spread([w - v for w, v in zip(whole, values, strict=True)])),
            }
            for name, values in accuracies.items()
        ],
    }
