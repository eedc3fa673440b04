"""What the report and its card say: what the run's folder says, and what is unknown."""

import base64
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from report_files import Parsed, drawn_at_once, make_run, without_maps, write_run

import onecycle
from onecycle import cli, files
from onecycle.api.data import DataFacts
from onecycle.cli.app import app
from onecycle.errors import DataError, DiskError, MissingExtraError, RecipeError
from onecycle.recipe import book
from onecycle.reporting import card, page
from onecycle.run import record, reopen

__all__ = ["drawn_at_once", "make_run", "without_maps"]


def test_the_page_says_what_the_folder_says(make_run, drawn_at_once):
    run = make_run()
    figures = onecycle.evaluate(run, quiet=True).figures
    text = " ".join(Parsed(onecycle.report(run, quiet=True).path).text.split())
    low, high = (f"{figures[f'accuracy_{end}']:.2%}" for end in ("low", "high"))
    assert f"{figures['accuracy']:.2%} of 60 test images are right" in text
    assert f"interval {low} to {high} (Wilson)" in text
    for row in figures["classes"]:
        assert f"{row['class']} 5 {row['recall']:.2%} ({row['recall_low']:.2%} to " in text
    worst = figures["most_confused"][0]
    assert f"{worst['actual']} {worst['predicted']} {worst['images']} {worst['share']:.2%}" in text
    assert f"{figures['calibration']['ece']:.2%} on average" in text
    assert "range" not in text


def test_the_worst_mistakes_come_first_with_their_maps(judged):
    found = Parsed(onecycle.report(judged, quiet=True).path)
    worst = onecycle.gallery(judged, 24, quiet=True).pictures
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    shown = [image for image in images if image["alt"].startswith("Test image")]
    assert len(shown) == len(worst) > 1
    for image, picture in zip(shown, worst, strict=True):
        assert f" {picture.index}: {picture.actual}, taken for {picture.predicted}" in image["alt"]
        content = io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))
        seen = np.asarray(Image.open(content))
        height = len(seen)
        assert seen.shape == (height, 2 * height, 3), "the image, and its map beside it"
        times = height // len(picture.pixels)
        assert np.array_equal(seen[::times, :height:times], picture.pixels)
    assert "Grad-CAM" in found.text


def test_a_class_without_images_is_not_called_bad(make_run, drawn_at_once):
    run = make_run(classes=("a", "b", "c"))
    probabilities, labels = record.read_predictions(run, "test")
    labels[labels == 2] = 0
    record.write_predictions(run, "test", probabilities, labels)
    text = " ".join(Parsed(onecycle.report(run, quiet=True).path).text.split())
    assert "c 0 n/a n/a n/a" in text and "Without a test image, and so unknown: c." in text


def test_a_run_without_mistakes_says_so(make_run, drawn_at_once):
    run = make_run()
    probabilities, labels = record.read_predictions(run, "test")
    probabilities[:] = 0
    probabilities[range(len(labels)), labels] = 1
    record.write_predictions(run, "test", probabilities, labels)
    text = Parsed(onecycle.report(run, quiet=True).path).text
    assert "every test image is right" in text and "most frequent mistake is" not in text


def test_a_run_that_was_forced_to_go_on_says_so(make_run, drawn_at_once):
    run = make_run()
    made = files.read_json(run / record.ENVIRONMENT)
    files.write_json(run / record.ENVIRONMENT, made | {"forced": ["other data"]})
    text = " ".join(Parsed(onecycle.report(run, quiet=True).path).text.split())
    assert "gone on with by --force, although other data" in text
    assert "Its training was gone on with although other data." in text


def test_the_range_test_of_the_run_is_shown(make_run, drawn_at_once):
    run = make_run()
    rates = [1e-4, 1e-3, 1e-2]
    rows = [{"seed": 0, "lr": lr, "loss": 1.0, "smoothed": 1.0} for lr in rates]
    record.write_table(run / record.LR_TABLE, rows)
    suggestion = {"rule": "steepest", "lr": 1e-3, "lrs": [1e-3], "refused": None}
    found = {"seeds": [0], "sweep": {"per_epoch": False, "linear": False}, "rule": "steepest"}
    found |= {"lr_max": 1e-3, "suggestions": [suggestion], "diverged_at": [None]}
    files.write_json(run / record.LR_FOUND, found)
    assert "Range test" in Parsed(onecycle.report(run, quiet=True).path).text


def test_without_its_data_a_run_is_reported_and_the_page_says_why(
    make_run, drawn_at_once, monkeypatch, capsys
):
    run = make_run()

    def gone(*_, **__):
        raise DataError("/x/<b> is gone")

    monkeypatch.setattr(reopen, "dataset", gone)
    found = Parsed(onecycle.report(run).path)
    assert "/x/<b> is gone" in found.text and "Samples" not in found.text
    assert "/x/<b> is gone" in capsys.readouterr().err


def test_without_a_library_that_augmented_a_run_is_reported(make_run, drawn_at_once, monkeypatch):
    def gone(*_):
        raise MissingExtraError("augment.policy needs kornia: pip install 'onecycle[policies]'")

    monkeypatch.setattr(DataFacts, "augmented", gone)
    found = Parsed(onecycle.report(make_run(), quiet=True).path)
    assert "augment.policy needs kornia" in found.text


@pytest.mark.parametrize("changed", [False, True])
def test_the_command_makes_the_run_again(tmp_path, tiny, changed):
    recipe = book.find("davidnet")
    recipe = book.change(recipe, ["model.width=2"]) if changed else recipe
    folder = write_run(tmp_path / "a run", tiny, recipe)
    made = files.read_json(folder / record.ENVIRONMENT)
    made |= {"seed": 7, "val_fraction": 0.1}
    made |= {"init": {"run": "a/run"}, "augment_backend": "albumentations"}
    made["data"] |= {"source": "/my data/$(x)", "skip_bad": True, "image_size_asked": 64}
    line = page.command(folder, files.read_json(folder / record.RECIPE), made)
    shell = ["sh", "-c", f"onecycle() {{ printf '%s\\n' \"$@\"; }}; {line}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    _, given, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert book.find(given.arguments.pop("recipe")).digest() == recipe.digest()
    assert given.arguments == {
        "data": "/my data/$(x)",
        "seed": 7,
        "val_fraction": 0.1,
        "init": "a/run",
        "augment_backend": "albumentations",
        "image_size": 64,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "skip_bad": True,
    }


def test_a_run_of_several_processes_is_repeated_by_as_many(tmp_path, tiny):
    folder = write_run(tmp_path / "run", tiny)
    made = files.read_json(folder / record.ENVIRONMENT) | {"processes": 4}
    line = page.command(folder, files.read_json(folder / record.RECIPE), made)
    assert line.startswith("torchrun --nproc-per-node 4 -m onecycle train \\\n") and "--out" in line


def test_the_card_is_what_the_page_says(make_run, drawn_at_once, tmp_path):
    run = make_run()
    text = Parsed(onecycle.report(run, quiet=True).path).text
    for chapter in card.chapters(run, onecycle.evaluate(run, quiet=True).figures):
        assert chapter.heading in text
        assert all(sentence in text for sentence in chapter.sentences)


def test_the_command_line_and_the_handle_write_the_same_page(
    make_run, drawn_at_once, tmp_path, monkeypatch, capsys
):
    run = make_run()
    out, target = tmp_path / "x.html", tmp_path / "x.md"
    monkeypatch.setattr(
        sys,
        "argv",
        ["onecycle", "report", str(run), "--out", str(out), "--card", str(target), "--json"],
    )
    cli.main()
    printed = json.loads(capsys.readouterr().out)
    size = out.stat().st_size
    assert printed == {"path": str(out), "bytes": size, "card": str(target)}
    made = onecycle.load(run).report(quiet=True)
    assert made.path == run / "report.html" and made.path.read_bytes() == out.read_bytes()


def test_what_cannot_be_reported_is_one_line(make_run, drawn_at_once, tmp_path):
    with pytest.raises(RecipeError, match="no run is there"):
        onecycle.report(tmp_path, quiet=True)
    run = make_run()
    with pytest.raises(DiskError, match="cannot write"):
        onecycle.report(run, out=tmp_path / "none" / "x.html", quiet=True)
    (run / record.SUMMARY).unlink()
    with pytest.raises(RecipeError, match="not finished"):
        onecycle.report(run, quiet=True)
