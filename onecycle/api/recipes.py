"""Recipes as Python functions: those there are, and the one that a verb is asked for."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onecycle.datasets.load import kind
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe

Settings = Mapping[str, Any] | Iterable[str]  # a text alone is one assignment


def recipes() -> list[Recipe]:
    """The recipes of the catalogue."""
    return [book.find(name) for name in book.names()]


def choose_recipe(
    recipe: str | Recipe | None,
    data: str | Path,
    epochs: float | None,
    settings: Settings,
    lr: float | None = None,
) -> Recipe:
    """`recipe`, or the one that the catalogue names for `data`, changed by dotted key.

    `settings` is a mapping, or `key=value` texts; `epochs` stretches the schedule and `lr` is its
    peak. Raises RecipeError.
    """
    if not isinstance(recipe, Recipe):
        recipe = book.find(recipe or book.DEFAULTS[kind(data)])
    return book.change(recipe, _assignments(settings), epochs, lr)


def _assignments(settings: Settings) -> list[str]:
    if isinstance(settings, Mapping):
        return [
            f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in settings.items()
        ]
    return [settings] if isinstance(settings, str) else list(settings)
