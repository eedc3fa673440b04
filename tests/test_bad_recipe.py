"""Recipes that can't be: refused in one line that names the key."""

import json

import pytest
import tomli_w
from recipe_files import BASE, RATES, assert_refused, value_at, with_value

from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import parse

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


def test_a_three_phase_cycle_needs_room_for_its_way_down():
    content = with_value(BASE, "schedule.three_phase", True)
    assert parse(with_value(content, "schedule.peak_epoch", 4), "").schedule.three_phase
    wrong = with_value(content, "schedule.peak_epoch", 4.5)
    assert_refused(lambda: parse(wrong, ""), "schedule.peak_epoch", "9", "8 epochs")


@pytest.mark.parametrize("lr", [0, -1, float("nan"), float("inf")])
def test_impossible_rate_is_refused(lr):
    assert_refused(lambda: book.change(parse(BASE, ""), [], lr=lr), "lr")


@pytest.mark.parametrize("name", ["", "../outside", "/tmp/x", "a/b", "x\x1b[31m", "x" * 101])
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(RecipeError, match="name: "):
        parse(BASE | {"name": name}, "mine.toml")
