"""The command line: one line and the right code for wrong use, results on stdout, the rest not."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onecycle
from onecycle import files
from onecycle.api.lr import RangeTest
from onecycle.recipe import book
from onecycle.run import find_lr, record

QUICK = ["--set", "model.width=4", "--epochs", "0.5", "--precision", "fp32", "--threads", "1"]


def picture(seed=0, size=16):
    content = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two classes of 16-pixel images: `pictures/train/cat/0.png` and so on."""
    for split, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = tmp_path / "pictures" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(i))
    return tmp_path / "pictures"


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
    assert {"descent", "steepest", "valley", "minimum/10", "slide"} <= set(printed)
    rate = printed["lr_max"].split()[0]
    assert float(printed["lr_min"].split()[0]) == pytest.approx(float(rate) / 10)
    assert f"--lr {rate}" in printed["next"]
    assert "range test: 50 batches" in err and "\x1b" not in err
    assert (tmp_path / "test" / "lr_find.png").exists()


def test_a_range_test_as_json(command):
    code, out, err = command(*SWEEP, "--json", "-q")
    assert code == 0 and err == ""
    result = json.loads(out)
    assert result["lr_max"] > result["lr_min"] and result["path"].endswith("digits+custom-lr-1")


def test_a_range_test_per_epoch_prints_its_table(command, tmp_path, monkeypatch):
    points = [find_lr.Point(lr, 2.0, a) for lr, a in ((0.1, 0.2), (0.2, 0.4), (0.3, 0.3))]
    curve = find_lr.Curve(0, tuple(points))
    sweep = find_lr.Sweep(0.1, 0.3, 3, True, True)
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


def test_an_image_folder_and_its_archive_give_the_same_run(command, folder):
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, "pictures")
    options = [*QUICK, "--set", "batch_size=8", "--json", "-q"]
    first, second = (
        json.loads(command("train", "--data", path, *options)[1]) for path in (folder, archive)
    )
    assert first["recipe"] == "folder+custom"
    for key in ("data_digest", "test_loss", "train_accuracy"):
        assert first[key] == second[key]


def only_cats(folder):
    for split in ("train", "test"):
        for path in (folder / split / "dog").iterdir():
            path.unlink()


def with_a_broken_image(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(picture()[:-40])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (only_cats, "only one class (cat)"),
        (with_a_broken_image, "train/cat/0.png"),
    ],
)
def test_data_that_cannot_be_used_is_named(command, folder, spoil, said):
    spoil(folder)
    code, out, err = command("train", "--data", folder, *QUICK)
    assert code == 3 and out == ""
    assert said in err.splitlines()[-1]
    assert not (folder.parent / "runs").exists()


def test_bad_images_are_skipped_and_pictures_resized_when_asked(command, folder):
    with_a_broken_image(folder)
    options = [*QUICK, "--set", "batch_size=8", "--skip-bad", "--image-size", "24"]
    code, _, err = command("train", "--data", folder, *options, "--val-fraction", "0.2")
    assert code == 0
    assert "note: 1 of 24 images can't be used and are left out" in err
    assert "test images of 24 pixels" in err and "no test images" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "--recipe", "davidnt"], 2, "did you mean 'davidnet'"),
        (["train", "--recipe", "missing.toml"], 2, "missing.toml"),
        (["train", "--set", "model.widht=8"], 2, "did you mean 'width'"),
        (["train", "--set", "epochs"], 2, "key=value"),
        (["train", "--set", "model.width=broad"], 2, "model.width"),
        (["train", "--set", "schedule.lr_peak=-1"], 2, "schedule.lr_peak"),
        (["train", "--epochs", "0"], 2, "--epochs 0"),
        (["train", "--epochs", "many"], 2, "--epochs"),
        (["train", "--val-fraction", "1.5"], 2, "--val-fraction 1.5"),
        (["train", "--image-size", "8"], 2, "--image-size 8: give a number of pixels from 16"),
        (["train", "--image-size", "64"], 2, "the images of digits have 32 pixels"),
        (["train", "--image-size", "big"], 2, "--image-size"),
        (["train", "--resume", "nowhere", "--skip-bad"], 2, "leave out --skip-bad"),
        (["train", "--set", "augment.pad=40"], 2, "augment.pad 40"),
        (["train", "--data", "nowhere"], 3, "nowhere"),
        (["train", "--data", "digit"], 3, "did you mean 'digits'"),
        (["train", "--data", "cifar10"], 3, "ONECYCLE_DATA"),
        (["train", "--device", "gpu"], 2, "--device gpu"),
        (["train", "--precision", "int4"], 2, "--precision int4"),
        (["train", "--precision", "fp16", "--device", "cpu"], 2, "bf16 or fp32"),
        (["train", "--threads", "0"], 2, "--threads 0"),
        (["train", "--resume", "nowhere"], 2, "nowhere"),
        (["train", "--resume", "nowhere", "--seed", "1"], 2, "leave out --seed"),
        (["train", "--resume", "nowhere", "--seed=0"], 2, "leave out --seed"),
        (["train", "--resume", "nowhere", "--data", "digits"], 2, "leave out --data"),
        (["train", "--resume", "nowhere", "--lr", "auto"], 2, "leave out --lr"),
        (["train", "--lr", "fast"], 2, "--lr fast: give a number, or auto"),
        (["train", "--recipe", "fast", "--lr", "auto"], 2, "too high for muon"),
        (["train", "--lr", "0"], 2, "--lr 0"),
        (["find-lr", "--start", "1", "--end", "0.1"], 2, "--start 1 --end 0.1"),
        (["find-lr", "--steps", "1"], 2, "--steps 1"),
        (["find-lr", "--steps", "many"], 2, "--steps"),
        (["find-lr", "--seeds", "0"], 2, "--seeds 0"),
        (["find-lr", "--val-fraction", "1.5"], 2, "--val-fraction 1.5"),
        (["find-lr", "--set", "schedule.kind=triangel"], 2, "did you mean 'triangular'"),
        (["train", "--nonsense"], 2, "--nonsense"),
        (["train", "--seed", "-1"], 2, "--seed -1: give a whole number from 0"),
        (["train", "--seed", str(2**32 - 2), "--seeds", "3"], 2, "--seed 4294967294"),
        (["find-lr", "--seed", str(2**32)], 2, "--seed 4294967296"),
        (["ablate", "--seed", "-1"], 2, "--seed -1"),
        (["train", "--threads", "10000000000"], 2, "--threads 10000000000: give 1 to 1,024"),
        (["train", "--set", "name=mine"], 2, "--set name: that says nothing to a run"),
        (["train", "--set", "for_images=" + "9" * 40], 2, "for_images"),
        (["train", "--set", "schedule.lr_start=1"], 2, "schedule.lr_start 1 is above the peak"),
        (["trian"], 2, "trian"),
        (["recipes", "davidnt"], 2, "did you mean 'davidnet'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_ends_in_one_line_with_its_code(command, monkeypatch, arguments, code, said):
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)
    found, out, err = command(*arguments)
    assert found == code and out == ""
    assert err.count("\n") == 1 and said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("out", "expected"), [("file", 2), ("file/run", 6), ("/proc/run", 6)])
def test_output_that_cannot_be_written(command, tmp_path, out, expected):
    (tmp_path / "file").write_text("mine")
    code, _, err = command("train", *QUICK, "--out", out)
    assert code == expected and out in err.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_to_a_full_disk_ends_in_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "onecycle", "recipes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 6
    assert done.stderr == "onecycle: cannot write the output: No space left on device\n"


def test_a_full_disk_has_its_own_code(command, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, _, err = command("train", *QUICK)
    assert code == 6 and "No space left on device" in err.splitlines()[-1]


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


def test_an_empty_word_is_no_value(command):
    code, _, err = command("train", "--data", "digits", "--init", "")
    assert code == 2 and "what comes after 'train --data digits --init' is empty" in err


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--recipe", f"{LONG}.toml"),
        ("train", "--init", LONG),
        ("train", "--data", LONG),
        ("export", "RUN", "--out", f"{LONG}.onnx"),
    ],
    ids=lambda words: words[-2],
)
def test_a_name_that_no_disk_takes_ends_in_one_line(digits_run, command, words):
    code, _, err = command(*(digits_run.path if word == "RUN" else word for word in words))
    assert code == 6 and err.count("\n") == 1 and "File name too long" in err


def test_what_the_terminal_has_no_letters_for_is_printed_all_the_same(digits_run, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "é.png")
    words = [sys.executable, "-m", "onecycle", "predict", str(digits_run.path), "é.png", "-q"]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and r"\xe9.png" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --batch-size 64", "--batch-size is part of the recipe: --set batch_size=VALUE"),
        ("evaluate run --batch-size 64", "Unknown option: --batch-size"),
        ("train pets", "'pets' belongs to no option: onecycle train --help lists them"),
        ("train --epochs x", "(onecycle train --help lists what there is)"),
        ("trian", "(onecycle --help lists what there is)"),
    ],
)
def test_wrong_words_lead_to_the_right_ones(command, words, said):
    code, _, err = command(*words.split())
    assert code == 2 and said in err and err.count("\n") == 1
