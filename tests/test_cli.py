"""The command line: results on stdout, the rest not, and quick to start and to leave."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image
from quick_training import QUICK

import onecycle
from onecycle import files
from onecycle.api.lr import RangeTest
from onecycle.recipe import book
from onecycle.run import find_lr, range_test, record


def test_training_prints_the_result_and_how_to_train_on_cifar(command):
    code, out, err = command("train", *QUICK)
    assert code == 0
    assert re.search(r"test accuracy +\d+\.\d\d%", out)
    assert "--data" in out.splitlines()[-1]
    assert "expected to take about" in err and "fp32" in err
    assert "\x1b" not in err, "plain lines where there is no terminal"


def test_json_is_one_object_and_quiet_says_nothing_else(command):
    code, out, err = command("train", *QUICK, "--json", "-q")
    assert code == 0 and err == ""
    result = json.loads(out)
    expected = {"run", "recipe", "data", "epochs", "test_accuracy", "train_accuracy", "seconds"}
    assert expected <= set(result)
    assert result["recipe"] == "digits+custom" and result["epochs"] == 0.5


SWEEP = ["find-lr", *QUICK[:2], *QUICK[4:], "--set", "batch_size=16", "--steps", "50"]


def test_a_range_test_prints_each_rule_and_how_to_train_on(command, tmp_path):
    code, out, err = command(*SWEEP, "--out", "test")
    assert code == 0
    printed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert {"steered", "steepest", "valley", "minimum/10", "slide"} <= set(printed)
    rate = printed["lr_max"].split()[0]
    assert float(printed["lr_min"].split()[0]) == pytest.approx(float(rate) / 10)
    assert f"--lr {rate}" in printed["next"]
    assert (
        "range test: 50 batches at rates from 1e-05 to 1, then 45 at rates steered" in err
        and "\x1b" not in err
    )
    assert printed["files"] == "test/lr_find.csv, .png, .json and lr_steered.csv"
    for name in ("lr_find.csv", "lr_find.png", "lr_find.json", "lr_steered.csv"):
        assert (tmp_path / "test" / name).exists()


def test_a_range_test_as_json(command):
    code, out, err = command(*SWEEP, "--json", "-q")
    assert code == 0 and err == ""
    result = json.loads(out)
    assert result["lr_max"] > result["lr_min"] and result["path"].endswith("digits+custom-lr-1")


def test_a_range_test_per_epoch_prints_its_table(command, tmp_path, monkeypatch):
    points = [range_test.Point(lr, 2.0, a) for lr, a in ((0.1, 0.2), (0.2, 0.4), (0.3, 0.3))]
    curve = find_lr.Curve(0, tuple(points))
    sweep = range_test.Sweep(0.1, 0.3, 3, True, True)
    record.write_table(tmp_path / record.LR_TABLE, find_lr.rows(curve))
    found = find_lr.judge([curve], sweep, book.find("digits"))
    files.write_json(tmp_path / record.LR_FOUND, found)
    asked = {}
    monkeypatch.setattr(onecycle, "find_lr", lambda *_, **a: asked.update(a) or RangeTest(tmp_path))
    code, out, _ = command("find-lr", "--per-epoch", "--steps", "3", "--start", "0.1")
    table = [line.split() for line in out.splitlines()[:4]]
    assert table[0] == ["seed", "lr", "loss", "accuracy"]
    assert [(row[1], row[3]) for row in table[1:]] == [
        ("0.1", "20.00%"),
        ("0.2", "40.00%"),
        ("0.3", "30.00%"),
    ]
    assert code == 0 and "lr_max          0.2  (by highest accuracy)" in out
    assert (asked["per_epoch"], asked["steps"], asked["start"]) == (True, 3, 0.1)


def test_recipes_are_listed_and_shown(command):
    code, out, _ = command("recipes")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == book.names()
    assert {line.index(book.find(line.split()[0]).about) for line in out.splitlines()} == {24}
    assert max(len(line) for line in out.splitlines()) <= 110
    code, out, _ = command("recipes", "davidnet")
    assert code == 0 and book.find("davidnet").digest() in out


def test_recipes_as_json(command):
    _, out, _ = command("recipes", "--json")
    listed = json.loads(out)["recipes"]
    assert [recipe["name"] for recipe in listed] == book.names()
    _, out, _ = command("recipes", "fast", "--json")
    assert json.loads(out) == next(recipe for recipe in listed if recipe["name"] == "fast")
    assert json.loads(out)["digest"] == book.find("fast").digest()


def test_a_shown_recipe_can_be_trained_from_a_file(command, tmp_path):
    _, text, _ = command("recipes", "digits")
    (tmp_path / "mine.toml").write_text(text)
    assert book.find("mine.toml") == book.find("digits")


def test_the_recipe_of_a_run_can_be_shown_and_trained_again(command, tmp_path):
    result = json.loads(command("train", *QUICK, "--json", "-q", "--out", "first")[1])
    code, text, _ = command("recipes", "first/recipe.json")
    assert code == 0
    (tmp_path / "mine.toml").write_text(text)
    for recipe in ("first/recipe.json", "mine.toml"):
        again = command("train", "--recipe", recipe, *QUICK[4:], "--json", "-q")[1]
        assert json.loads(again)["recipe_digest"] == result["recipe_digest"]
        assert json.loads(again)["test_loss"] == result["test_loss"]
    (tmp_path / "wrong.json").write_text("[1]")
    code, _, err = command("train", "--recipe", "wrong.json")
    assert code == 2 and "not the recipe.json of a run" in err


def test_help_is_quick_and_waits_for_no_torch():
    code = """
import sys
sys.argv = ["onecycle", "--help"]
from onecycle.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "numpy", "matplotlib", "sklearn"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    seconds = []
    for _ in range(8):
        start = os.times()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        spent = os.times()
        # Of the processor: what passes on the clock depends on what else the machine does.
        seconds.append(
            spent.children_user
            + spent.children_system
            - start.children_user
            - start.children_system
        )
        assert done.returncode == 0, done.stderr
        assert "train" in done.stdout
    assert min(seconds) < 0.3


def test_leaving_does_not_search_for_garbage():
    """It would take a second of CPU time, more than all else after a signal."""
    code = "import gc, sys; sys.argv = ['onecycle', 'recipes']\n"
    code += "import atexit; atexit.register(lambda: print(gc.get_freeze_count() > 1000))\n"
    code += "from onecycle.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("True\n"), done.stderr


def test_what_the_terminal_has_no_letters_for_is_printed_all_the_same(digits_run, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "é.png")
    words = [sys.executable, "-m", "onecycle", "predict", str(digits_run.path), "é.png", "-q"]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and r"\xe9.png" in done.stdout, done.stderr
