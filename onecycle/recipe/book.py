"""Finding recipes by name or file, and changing them key by key."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from onecycle.errors import RecipeError, brief, did_you_mean
from onecycle.files import disk_errors, read_bytes
from onecycle.recipe import schedules
from onecycle.recipe.schema import Recipe, parse

CATALOG = resources.files("onecycle.recipe.catalog")
DEFAULTS = {"digits": "digits", "cifar": "fast", "pictures": "folder"}  # by kind of data


def names() -> list[str]:
    """The names in the catalogue, sorted."""
    return sorted(f.name[:-5] for f in CATALOG.iterdir() if f.name.endswith(".toml"))


def find(name: str) -> Recipe:
    """The recipe called `name` in the catalogue, or in the file at the path `name`.

    A file is TOML, or the `recipe.json` of a run. Raises RecipeError for an unknown name or a
    file that is no recipe.
    """
    content = _read(name)
    if name.endswith(".json"):
        return parse(_run_recipe(content, name), name)
    try:
        table = tomllib.loads(content.decode())
    # Numbers of thousands of digits are a ValueError, tables within a thousand others recursion.
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"recipe {name}: not TOML: {brief(str(error))}") from error
    return parse(table, f"recipe {name}")


def text(name: str) -> str:
    """The recipe called `name` as TOML that `find` reads, with the comments that its file has."""
    recipe = find(name)
    if name.endswith(".json"):
        return tomli_w.dumps(recipe.to_dict())
    return _read(name).decode()


def change(
    recipe: Recipe, assignments: list[str], epochs: float | None = None, lr: float | None = None
) -> Recipe:
    """`recipe` with `key=value` assignments (keys dotted, `groups.0.weight_decay=0.1`).

    `epochs` sets the length, for any number of images, and stretches the schedule with it; `lr`
    sets the schedule's peak, and scales its other rates with it; assignments come after both. What
    differs from the original is named `<name>+custom`. Raises RecipeError for an unknown key or a
    bad value.
    """
    content = recipe.model_dump(mode="json")
    if epochs is not None:
        if not epochs > 0:
            raise RecipeError(f"--epochs {epochs:g}: give more than 0")
        factor = epochs / content["epochs"]
        content["schedule"] = schedules.stretched(content["schedule"], factor)
        content["resolution"] = [[at * factor, share] for at, share in content["resolution"]]
        content["epochs"], content["for_images"] = epochs, 0
    if lr is not None:
        if not lr > 0:
            raise RecipeError(f"--lr {lr:g}: give more than 0, or auto")
        content["schedule"] = schedules.with_peak(content["schedule"], lr)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise RecipeError(f"--set {brief(assignment)}: write key=value, such as model.width=32")
        key, value = key.strip(), value.strip()
        if key in ("name", "about"):
            raise RecipeError(f"--set {key}: that says nothing to a run; write it in a recipe file")
        if key == "schedule.kind":
            content["schedule"] = schedules.as_kind(content["schedule"], _value(key, value))
        else:
            _assign(content, key, _value(key, value))
    changed = parse(content, f"recipe {recipe.name} as changed")
    if changed == recipe:
        return recipe
    return changed.model_copy(update={"name": f"{recipe.name.removesuffix('+custom')}+custom"})


def _assign(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    here: Any = content
    for part in path:
        here = here[_step(here, part, key)]
        if here is None:
            raise RecipeError(f"--set {brief(key)}: this recipe has no table '{part}'")
    here[_step(here, last, key)] = value


def _step(here: Any, part: str, key: str) -> str | int:
    """`part` as a key or index of `here`; RecipeError naming the full `key` if it is none."""
    key = brief(key)
    if isinstance(here, list):
        if part in map(str, range(len(here))):
            return int(part)
        raise RecipeError(f"--set {key}: '{brief(part)}' is not a row number below {len(here)}")
    if not isinstance(here, dict) or part not in here:
        options = list(here) if isinstance(here, dict) else []
        raise RecipeError(f"--set {key}: unknown key '{brief(part)}'{did_you_mean(part, options)}")
    return part


def _value(key: str, text: str) -> Any:
    """`text` as a TOML value; a bare word is a string. RecipeError, naming `key`, for neither."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"--set {brief(key)}={brief(text)}: {brief(str(error))}") from error


def _read(name: str) -> bytes:
    """What the file behind `name` holds."""
    if name.endswith((".toml", ".json")):
        with disk_errors(Path(name), "read"):
            if not Path(name).is_file():
                raise RecipeError(f"--recipe {name}: there is no such file")
        return read_bytes(Path(name))
    if name not in names():
        raise RecipeError(
            f"unknown recipe '{name}'{did_you_mean(name, names())}: 'onecycle recipes' lists them"
        )
    return CATALOG.joinpath(f"{name}.toml").read_bytes()


def _run_recipe(content: bytes, where: str) -> dict[str, Any]:
    """The recipe in the bytes of a run's `recipe.json`."""
    try:
        recipe: dict[str, Any] = json.loads(content)["recipe"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(f"recipe {where}: not the recipe.json of a run") from error
    return recipe
