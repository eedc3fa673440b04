"""What goes wrong on the command line ends in one line, with a code of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick_training import QUICK


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
        (["train", "--recipe", "fast", "--lr", "auto"], 2, "no good for muon"),
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


@pytest.mark.parametrize("lines", [1, 9999])
def test_a_reader_that_stops_early_sees_no_traceback(lines):
    code = f"""
import sys
from onecycle.cli import app
app.app.command(lambda: print("x" * 99, *range({lines})), name="long")
sys.argv = ["onecycle", "long"]
app.main()
"""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.stderr, done.returncode) == (b"", 141)


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
