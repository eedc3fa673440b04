"""Recipes: what they promise is that a name stands for exact numbers, and that slips are named."""

import json
import tomllib

import pytest
import tomli_w

from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe, parse

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
RATES = {"lr_start": 1e-3, "lr_peak": 1e-2}
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


def value_at(content, key):
    for part in key.split("."):
        content = content[int(part) if isinstance(content, list) else part]
    return content


def with_value(content, key, value):
    """A copy of `content` with `value` at the dotted `key`."""
    copy = json.loads(json.dumps(content))
    *path, last = key.split(".")
    here = value_at(copy, ".".join(path)) if path else copy
    here[int(last) if isinstance(here, list) else last] = value
    return copy


def another(value):
    """A valid value that is not `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return OTHER_WORD.get(value, value + "x")
    return value + 1 if isinstance(value, int) else value / 2


def assert_refused(call, *parts):
    """`call` raises RecipeError in one line that has all of `parts`."""
    with pytest.raises(RecipeError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


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


BASE = {
    "name": "base",
    "about": "",
    "epochs": 8.0,
    "batch_size": 64,
    "model": {"name": "davidnet", "width": 8},
    "augment": {},
    "schedule": {
        "lr_start": 1e-3,
        "lr_peak": 1e-2,
        "lr_final": 1e-4,
        "peak_epoch": 2.0,
        "shape": "linear",
    },
    "optimizers": {"sgd": {"momentum": 0.9}},
    "groups": [{"match": "*", "optimizer": "sgd"}],
}

WRONG = [
    ("epoch", 3, ["'epochs'"]),
    ("model.widht", 32, ["model", "'width'"]),
    ("augment.cutuot", 8, ["augment", "'cutout'"]),
    ("optimizers.sdg", {"momentum": 0.9}, ["optimizers", "'sgd'"]),
    ("optimizers.sgd.nestrov", True, ["optimizers.sgd", "'nesterov'"]),
    ("groups.0.weight_deca", 0.1, ["groups.0", "'weight_decay'"]),
    ("schedule.lr_peak", -0.1, ["schedule.lr_peak", "-0.1"]),
    ("schedule.lr_start", 0, ["schedule.lr_start"]),
    ("schedule.lr_start", 0.02, ["schedule.lr_start 0.02 is above the peak of 0.01"]),
    ("schedule.lr_final", 0.02, ["schedule.lr_final 0.02 is above the peak of 0.01"]),
    ("optimizers.sgd", {"momentum": 0, "nesterov": True}, ["optimizers.sgd", "momentum above 0"]),
    ("for_images", 10**10, ["for_images"]),
    ("schedule.lr_peak", float("nan"), ["schedule.lr_peak", "nan"]),
    ("groups.0.weight_decay", float("inf"), ["groups.0.weight_decay", "inf"]),
    ("epochs", 0, ["epochs"]),
    ("epochs", 1e308, ["epochs", "1000000"]),
    ("batch_size", 10**18, ["batch_size"]),
    ("model.width", 10**18, ["model.width"]),
    ("model.head", "x" * 5000, ["model.head", "x...x"]),
    ("groups.0", {"match": "x" * 5000, "optimizer": "adam"}, ["x...x", "[optimizers.adam]"]),
    ("batch_size", 0, ["batch_size"]),
    ("batch_size", 0.5, ["batch_size"]),
    ("label_smoothing", 1.0, ["label_smoothing"]),
    ("schedule.peak_epoch", 9, ["peak_epoch 9", "8 epochs"]),
    ("epochs", 1, ["peak_epoch 2", "1 epochs"]),
    ("schedule", {"kind": "trianglar"}, ["schedule.kind", "did you mean 'triangular'?"]),
    ("schedule", {"kind": 3}, ["schedule.kind", "'3'", "one_cycle"]),
    ("schedule", {"kind": "constant", "lr_peek": 0.1}, ["schedule.lr_peak", "required"]),
    ("schedule", {"kind": "constant", "lr_peak": 0.1, "lr_finl": 1}, ["schedule.lr_finl"]),
    (
        "schedule",
        {"kind": "cosine", "lr_peak": 0.1, "lr_final": 0.01, "pre": "epoch"},
        ["schedule.pre", "'per'"],
    ),
    (
        "schedule",
        {"kind": "triangular", **RATES, "cycle_epochs": 9},
        ["schedule.cycle_epochs 9", "8 epochs"],
    ),
    ("schedule", {"kind": "piecewise", "knots": [[0, 1], [9, 1]]}, ["knots", "9", "8 epochs"]),
    ("schedule", {"kind": "piecewise", "knots": [[2, 1], [1, 1]]}, ["knots", "rise", "2, 1"]),
    ("schedule", {"kind": "piecewise", "knots": [[0, 1], [1, 0]]}, ["schedule.knots.1.1"]),
    ("schedule", {"kind": "piecewise", "knots": []}, ["schedule.knots"]),
    ("schedule", 3, ["schedule"]),
    ("groups.0.optimizer", "adam", ["[optimizers.adam]"]),
    ("groups.0.optimizer", "adamm", ["groups.0.optimizer", "'adamm'"]),
    ("groups", [], ["groups"]),
    ("model.width", "wide", ["model.width", "'wide'"]),
    ("model.head", ["max"], ["model.head"]),
    ("model", 3, ["model"]),
    ("model.name", "resnet50", ["model.name", "'resnet50'"]),
]


@pytest.mark.parametrize(("key", "value", "parts"), WRONG)
def test_wrong_recipe_file_is_refused_with_its_key(key, value, parts, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(tomli_w.dumps(BASE))
    assert book.find(str(path)).name == "base"
    path.write_text(tomli_w.dumps(with_value(BASE, key, value)))
    assert_refused(lambda: book.find(str(path)), str(path), *parts)


@pytest.mark.parametrize(
    ("key", "value", "parts"), [case for case in WRONG if not isinstance(case[1], dict)]
)
def test_wrong_assignment_is_refused_with_its_key(key, value, parts):
    text = tomli_w.dumps({"v": value}).partition("=")[2].strip()
    assert_refused(lambda: book.change(parse(BASE, ""), [f"{key}={text}"]), *parts)


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("epochs", ["key=value"]),
        ("groups.1.match=x", ["groups.1.match", "'1'"]),
        ("groups.first.match=x", ["'first'"]),
        ("groups.².match=x", ["'²'"]),
        (f"groups.{'9' * 5000}.match=x", ["groups.9", "9...9"]),
        (f"epochs={'9' * 5000}", ["epochs", "9...9"]),
        (f"epochs={'[' * 5000}", ["epochs", "[...["]),
        ("optimizers.adam.eps=1", ["no table 'adam'"]),
        ("model.width.x=1", ["model.width.x"]),
        ("=3", ["unknown key"]),
    ],
)
def test_assignment_to_nothing_is_refused(assignment, parts):
    assert_refused(lambda: book.change(parse(BASE, ""), [assignment]), "--set", *parts)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        (name, key, value)
        for key, value in {
            "conv_bias": "all",
            "fc_bias": True,
            "head": "gap",
            "dropout": 0.1,
        }.items()
        for name in ("dilated", "resnet18")
        if (name, key) != ("dilated", "dropout")
    ],
)
def test_a_field_that_says_nothing_to_a_network_is_refused(name, key, value):
    base = parse(with_value(BASE, "model.name", name), "")
    text = tomli_w.dumps({"v": value}).partition("=")[2].strip()
    assert_refused(lambda: book.change(base, [f"model.{key}={text}"]), "model", key, name)


@pytest.mark.parametrize("key", ["epochs", "model", "model.width", "schedule.shape", "groups"])
def test_missing_key_is_named(key):
    *path, last = key.split(".")
    content = json.loads(json.dumps(BASE))
    del (value_at(content, path[0]) if path else content)[last]
    assert_refused(lambda: parse(content, "here"), "here", key)


@pytest.mark.parametrize(
    "content",
    [b"epochs 3", b"\xff\xfe", b"[model", b"epochs = " + b"9" * 5000, b"a = " + b"[" * 5000],
)
def test_file_that_is_no_toml_is_refused(content, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_bytes(content)
    assert_refused(lambda: book.find(str(path)), str(path), "not TOML")


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.toml"
    with pytest.raises(RecipeError) as caught:
        book.find(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", book.names())
def test_unknown_name_is_answered_with_the_nearest(name):
    assert_refused(lambda: book.find(name[:-1] + "_"), "unknown recipe", f"did you mean '{name}'?")


@pytest.mark.parametrize("epochs", [0, -1, float("nan"), float("inf")])
def test_impossible_number_of_epochs_is_refused(epochs):
    assert_refused(lambda: book.change(parse(BASE, ""), [], epochs=epochs), "epochs")


@pytest.mark.parametrize("epochs", [0.5, 3, 7.25, 48])
@pytest.mark.parametrize("peak", [2.0, 7.0, 8.0])
def test_epochs_keep_the_peak_at_the_same_fraction(epochs, peak):
    recipe = parse(with_value(BASE, "schedule.peak_epoch", peak), "")
    changed = book.change(recipe, [], epochs=epochs)
    assert changed.epochs == epochs
    assert changed.schedule.peak_epoch == pytest.approx(epochs * peak / 8, rel=1e-12)


@pytest.mark.parametrize("length", [7, 11, 24])
def test_a_peak_at_the_end_stays_there_for_any_length(length):
    content = with_value(with_value(BASE, "epochs", length), "schedule.peak_epoch", length)
    recipe = parse(content, "")
    for quarters in range(1, 120):
        changed = book.change(recipe, [], epochs=quarters / 4)
        assert changed.schedule.peak_epoch == pytest.approx(changed.epochs, rel=1e-12)


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("model.width=32", lambda recipe: recipe.model.width == 32),
        ("model.head=gap", lambda recipe: recipe.model.head == "gap"),
        ("model.head='gap'", lambda recipe: recipe.model.head == "gap"),
        ("drop_last=true", lambda recipe: recipe.drop_last is True),
        ("groups.0.lr_scale = 1e-2", lambda recipe: recipe.groups[0].lr_scale == 0.01),
        ("schedule.momentum_at_peak=0.8", lambda recipe: recipe.schedule.momentum_at_peak == 0.8),
        ("optimizers={sgd={momentum=0.5}}", lambda recipe: recipe.optimizers.sgd.momentum == 0.5),
    ],
)
def test_assignment_arrives_and_is_named_custom(assignment, read):
    base = parse(BASE, "")
    changed = book.change(base, [assignment])
    assert read(changed)
    assert not read(base)
    assert changed.name == "base+custom"


def test_what_computes_the_same_keeps_its_name():
    base = parse(BASE, "")
    same = book.change(base, ["model.width=8", "augment.cutout_probability=1.0"], epochs=8)
    assert same.name == "base"
    assert same == base


@pytest.mark.parametrize(
    ("assignments", "rates"),
    [
        (["schedule.kind=constant"], {"lr_peak": 1e-2}),
        (["schedule.kind=cosine"], {"lr_peak": 1e-2, "lr_final": 1e-4}),
        (["schedule.kind=cosine", "schedule.lr_peak=0.3"], {"lr_peak": 0.3, "lr_final": 1e-4}),
        (["schedule.kind=triangular2", "schedule.cycle_epochs=4"], {**RATES, "cycle_epochs": 4}),
        (["schedule.kind=piecewise", "schedule.knots=[[0, 1]]"], {"knots": [[0, 1]]}),
    ],
)
def test_another_kind_of_schedule_keeps_what_it_shares(assignments, rates):
    changed = book.change(parse(BASE, ""), assignments)
    assert changed.to_dict()["schedule"] == {"kind": assignments[0].partition("=")[2], **rates}


def test_another_kind_asks_for_what_it_lacks():
    base = parse(BASE, "")
    for kind, key in (("triangular", "cycle_epochs"), ("piecewise", "knots")):
        assert_refused(
            lambda kind=kind: book.change(base, [f"schedule.kind={kind}"]),
            f"schedule.{key}",
            "required",
        )


def test_a_three_phase_cycle_needs_room_for_its_way_down():
    content = with_value(BASE, "schedule.three_phase", True)
    assert parse(with_value(content, "schedule.peak_epoch", 4), "").schedule.three_phase
    wrong = with_value(content, "schedule.peak_epoch", 4.5)
    assert_refused(lambda: parse(wrong, ""), "schedule.peak_epoch", "9", "8 epochs")


@pytest.mark.parametrize("lr", [0, -1, float("nan"), float("inf")])
def test_impossible_rate_is_refused(lr):
    assert_refused(lambda: book.change(parse(BASE, ""), [], lr=lr), "lr")


@pytest.mark.parametrize("lr", [0.003, 0.0061, 0.13, 1 / 3])
def test_a_rate_is_exactly_the_peak(lr):
    assert book.change(parse(BASE, ""), [], lr=lr).schedule.lr_peak == lr


def test_a_rate_is_the_peak_and_scales_the_others_and_assignments_come_after():
    changed = book.change(parse(BASE, ""), ["schedule.lr_final=3e-4"], lr=2e-2).schedule
    assert (changed.lr_start, changed.lr_peak, changed.lr_final) == (2e-3, 2e-2, 3e-4)


@pytest.mark.parametrize("name", ["", "../outside", "/tmp/x", "a/b", "x\x1b[31m", "x" * 101])
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(RecipeError, match="name: "):
        parse(BASE | {"name": name}, "mine.toml")


def test_an_ingredient_can_be_changed():
    changed = book.change(book.find("davidnet"), ['ingredients.crop=["augment.pad=2"]'])
    assert changed.ingredients["crop"] == ("augment.pad=2",)


def test_changing_twice_is_named_custom_once():
    once = book.change(parse(BASE, ""), ["model.width=16"])
    assert book.change(once, ["model.width=32"]).name == "base+custom"


def test_a_recipe_cannot_be_changed_in_place():
    recipe: Recipe = parse(tomllib.loads(tomli_w.dumps(BASE)), "")
    with pytest.raises(ValueError, match="frozen"):
        recipe.model.width = 3
