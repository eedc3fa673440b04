"""Recipes: what they promise is that a name stands for exact numbers."""

import json

import pytest
import tomli_w
from recipe_files import RATES, value_at, with_value

from onecycle.recipe import book
from onecycle.recipe.schema import parse

LOCK = "lock.json"

# Every field of the schema, none at its off value.
FULL = {
    "name": "full",
    "about": "all fields",
    "epochs": 8.0,
    "for_images": 5000,
    "batch_size": 64,
    "balance": "sampling",
    "ghost_batch": 32,
    "drop_last": True,
    "label_smoothing": 0.2,
    "resolution": [[1.0, 0.5], [3.0, 0.75]],
    "model": {
        "name": "davidnet",
        "width": 8,
        "conv_bias": "plain",
        "fc_bias": True,
        "dropout": 0.1,
        "head": "gap",
        "statistics": "imagenet",
        "int8": True,
    },
    "augment": {
        "for_size": 32,
        "pad": 4,
        "pad_mode": "reflect",
        "flip": "alternating",
        "cutout": 8,
        "cutout_probability": 0.5,
        "cutout_side": "random",
        "cutout_place": "clipped",
        "cutout_fill": "zero",
        "erasing": 0.25,
        "brightness": 0.1,
        "contrast": 0.2,
        "policy": "trivial",
        "colour": 0.4,
        "mixup": 0.2,
        "cutmix": 1.0,
    },
    "schedule": {
        "lr_start": 1e-3,
        "lr_peak": 1e-2,
        "lr_final": 1e-4,
        "peak_epoch": 2.0,
        "three_phase": True,
        "shape": "cosine",
        "per": "epoch",
        "momentum_at_peak": 0.8,
    },
    "optimizers": {
        "sgd": {"momentum": 0.9, "nesterov": True},
        "adam": {"momentum": 0.9, "beta2": 0.99, "eps": 1e-8},
        "adamw": {"momentum": 0.9, "beta2": 0.99, "eps": 1e-8},
        "muon": {"momentum": 0.9, "iterations": 3},
    },
    "groups": [
        {"match": "*.norm.*", "optimizer": "sgd", "lr_scale": 0.5, "weight_decay": 0.1},
        {"match": "fc.*", "optimizer": "adam", "lr_scale": 0.5, "weight_decay": 0.1},
        {"match": "*", "optimizer": "adamw", "lr_scale": 0.5, "weight_decay": 0.1},
    ],
    "ingredients": {"cutout": ["augment.cutout=0"]},
}
OTHER_SCHEDULES = [
    {
        **{"kind": "triangular", **RATES},
        **{"cycle_epochs": 4.0, "per": "epoch", "momentum_at_peak": 0.8},
    },
    {"kind": "piecewise", "knots": [[0.5, 1e-3], [8.0, 1e-2]], "shape": "cosine", "per": "epoch"},
    {"kind": "cosine", "lr_peak": 1e-2, "lr_final": 1e-3, "per": "epoch"},
    {"kind": "constant", "lr_peak": 1e-2},
]
OTHER_WORD = {
    "trivial": "none",
    "sampling": "weights",
    "plain": "all",
    "gap": "max",
    "imagenet": "data",
    "reflect": "zero",
    "alternating": "random",
    "random": "fixed",
    "clipped": "inside",
    "zero": "mean",
    "cosine": "linear",
    "epoch": "batch",
    "sgd": "adam",
    "adam": "adamw",
    "adamw": "sgd",
}


def leaves(content, path=()):
    """The dotted keys of all plain values in `content`."""
    rows = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in rows:
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        else:
            yield ".".join(map(str, (*path, key)))


def another(value):
    """A valid value that is not `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return OTHER_WORD.get(value, value + "x")
    return value + 1 if isinstance(value, int) else value / 2


@pytest.mark.parametrize("name", book.names())
def test_catalogue_file_holds_the_recipe_of_its_name(name):
    assert book.find(name).name == name


@pytest.mark.parametrize("name", [*book.names(), "full"])
def test_toml_and_json_read_back_an_equal_recipe(name, tmp_path):
    recipe = parse(FULL, "full") if name == "full" else book.find(name)
    path = tmp_path / "copy.toml"
    path.write_text(tomli_w.dumps(recipe.to_dict()))
    assert book.find(str(path)) == recipe
    assert parse(json.loads(json.dumps(recipe.to_dict())), "json") == recipe


def test_released_recipes_never_change():
    lock = json.loads(book.CATALOG.joinpath(LOCK).read_text())
    digests = {name: book.find(name).digest() for name in book.names()}
    assert lock == digests, (
        f"a released recipe never changes: add a new name beside it. For a new name, add its line "
        f"to onecycle/recipe/catalog/{LOCK}: {json.dumps(digests)}"
    )


def test_the_full_recipe_of_these_tests_sets_every_field():
    recipe = parse(FULL, "full")
    content = recipe.model_dump(mode="json")
    assert content["schedule"].pop("kind") == "one_cycle"
    assert content == recipe.to_dict() == FULL


@pytest.mark.parametrize("schedule", OTHER_SCHEDULES, ids=lambda schedule: schedule["kind"])
def test_every_kind_of_schedule_reads_back_and_every_number_counts(schedule):
    content = with_value(FULL, "schedule", schedule)
    recipe = parse(content, "")
    assert recipe.model_dump(mode="json") == recipe.to_dict() == content
    for key in leaves(schedule, ("schedule",)):
        if key != "schedule.kind":
            changed = with_value(content, key, another(value_at(content, key)))
            assert parse(changed, "").digest() != recipe.digest(), key


@pytest.mark.parametrize("key", ["name", "about", "ingredients.cutout.0"])
def test_digest_does_not_depend_on_words_for_people(key):
    assert parse(with_value(FULL, key, "other"), "").digest() == parse(FULL, "").digest()


@pytest.mark.parametrize(
    "key",
    [
        key
        for key in leaves(FULL)
        if key not in ("name", "about", "model.name", "ingredients.cutout.0")
    ],
)
def test_digest_changes_with_every_number(key):
    changed = with_value(FULL, key, another(value_at(FULL, key)))
    assert parse(changed, "").digest() != parse(FULL, "").digest()


@pytest.mark.parametrize("name", book.names())
def test_explicit_off_values_leave_the_digest_as_it_is(name):
    recipe = book.find(name)
    explicit = recipe.model_dump(mode="json")
    assert len(list(leaves(explicit))) > len(list(leaves(recipe.to_dict())))
    assert parse(explicit, "").digest() == recipe.digest()
