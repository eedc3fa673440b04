"""A finished run is judged from what it kept; what it didn't keep is predicted once."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch

import onecycle
from onecycle import cli
from onecycle.api import evaluation as api
from onecycle.errors import DataError, DiskError, RecipeError
from onecycle.evaluation import metrics
from onecycle.reporting import plots
from onecycle.run import record, reopen

FILES = ["confusion.csv", "confusion.png", "confusion_shares.csv", "evaluation.json"]
FILES += ["per_class.csv", "per_class.png", "reliability.png"]
ONE = ["--threads", "1"]


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures, which take most of the time, are written in the tests named `..._written` only."""
    if "written" not in request.node.name:
        monkeypatch.setattr(plots, "save", lambda figure, path: None)


@pytest.fixture
def run(judged, tmp_path):
    """A copy of the finished run."""
    return onecycle.load(shutil.copytree(judged.path, tmp_path / "run"))


def evaluate(run, data=None, **options):
    return onecycle.evaluate(run, data, threads=1, quiet=True, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_test_part_is_judged_as_the_run_itself_did_and_the_result_written(run):
    found = evaluate(run)
    assert found.path == run.path / "evaluation" / "test"
    assert sorted(contents(found.path)) == FILES
    assert json.loads((found.path / "evaluation.json").read_text()) == found.figures
    assert found.accuracy == run.summary["test_accuracy"]
    assert found.figures["loss"] == run.summary["test_loss"]
    assert found.figures["tta"] == "none" and found.figures["images"] == 30
    assert "18 validation" in found.figures["calibration"]["temperature_note"]


def test_the_validation_part_is_kept(run):
    probabilities, labels = record.read_predictions(run.path, "val")
    assert metrics.accuracy(probabilities, labels) == run.summary["val_accuracy"]
    assert probabilities.dtype == np.float32 and probabilities.shape == (18, 3)


def test_tables_hold_the_figures(run):
    found = evaluate(run)
    with open(found.path / "per_class.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == run_classes(run)
    for row, expected in zip(rows, found.figures["classes"], strict=True):
        assert float(row["recall"]) == expected["recall"] and row["tta"] == "none"
    counts = list(csv.reader((found.path / "confusion.csv").read_text().splitlines()))
    assert counts[0][1:] == [row[0] for row in counts[1:]] == run_classes(run)
    assert [[int(cell) for cell in row[1:]] for row in counts[1:]] == found.figures["confusion"]


def run_classes(run):
    return json.loads((run.path / record.CLASSES).read_text())


def test_judging_twice_writes_the_same_bytes_as_were_written(run):
    first = contents(evaluate(run, tta="crop").path)
    assert contents(evaluate(run, tta="crop").path) == first


def test_what_was_kept_needs_neither_data_nor_network(run, monkeypatch):
    evaluate(run, tta="flip")
    monkeypatch.setattr(api, "probabilities", None)
    monkeypatch.setattr(api.reopen, "load_data", None)
    (run.path / record.WEIGHTS).unlink()
    evaluate(run)
    evaluate(run, tta="flip")


def test_figures_with_test_time_augmentation_are_named_and_kept_apart(run):
    plain = contents(evaluate(run).path)
    found = evaluate(run, tta="crop")
    assert found.path.name == "test-crop" and contents(run.path / "evaluation" / "test") == plain
    assert found.figures["tta_note"] == "crop test-time augmentation, 6 views"
    for table in ("confusion.csv", "confusion_shares.csv", "per_class.csv"):
        assert "crop" in (found.path / table).read_text()
    for figure in (found.confusion(), found.reliability(), found.per_class()):
        assert "crop test-time augmentation" in figure.axes[0].get_title()
    kept, labels = record.read_predictions(found.path, "test")
    assert metrics.accuracy(kept, labels) == found.accuracy
    assert not np.array_equal(kept, run.probabilities)
    assert record.read_predictions(found.path, "val")[0].shape == (18, 3)


def test_other_data_of_the_same_classes_is_judged_and_kept_by_its_digest(
    run, coloured, monkeypatch
):
    other = coloured(seed=1, test=7)
    found = evaluate(run, other)
    assert found.path.name == f"data-{found.figures['data_digest'][:16]}"
    assert found.figures["images"] == 21 and found.figures["data"] == "coloured"
    assert found.figures["calibration"] != evaluate(run).figures["calibration"]
    monkeypatch.setattr(api, "probabilities", None)
    assert evaluate(run, other).figures == found.figures


def test_a_network_found_again_predicts_what_the_run_kept(run, machine):
    digest = run.summary["data_digest"]
    data = reopen.dataset(run.path, digest)
    assert data.digest == digest and len(data.val) == 18
    network = reopen.network(run.path, machine)
    assert not network.training
    for part in ("test", "val"):
        kept, labels = record.read_predictions(run.path, part)
        again = api.probabilities(network, getattr(data, part), machine)
        np.testing.assert_allclose(again, kept, atol=1e-6)
        assert (labels == getattr(data, part).labels).all()


def test_the_runs_own_data_is_known_again_wherever_it_lies(run, judged, tmp_path):
    source = json.loads((run.path / record.ENVIRONMENT).read_text())["data"]["source"]
    moved = shutil.copytree(source, tmp_path / "moved")
    assert evaluate(run, moved).figures == evaluate(run).figures
    assert [place.name for place in (run.path / "evaluation").iterdir()] == ["test"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("cat", "$dog$ & co", "lion")}, "without naïve; with lion, unknown"),
        ({"classes": ("cat", "naïve")}, "without \\$dog\\$ & co"),
    ],
)
def test_data_that_does_not_fit_is_refused_and_the_difference_named(run, coloured, changes, said):
    with pytest.raises(DataError, match=said):
        evaluate(run, coloured(train=2, test=1, **changes))


def test_pictures_of_another_size_are_brought_to_the_runs(run, coloured):
    found = evaluate(run, coloured(train=2, test=5, size=24)).figures
    assert found["images"] == 15


def test_a_validation_part_of_the_datas_own_calibrates(coloured, tmp_path):
    data = shutil.copytree(coloured(), tmp_path / "pets")
    shutil.copytree(data / "test", data / "val")
    settings = ["model.width=4", "batch_size=24"]
    options = {"epochs": 1, "settings": settings, "threads": 1, "precision": "fp32"}
    made = onecycle.train("digits", data, quiet=True, **options)
    note = evaluate(made).figures["calibration"]["temperature_note"]
    assert note.startswith("fitted on 30 validation images")


def test_classes_in_another_order_are_refused(run, coloured):
    names = run_classes(run)
    (run.path / record.CLASSES).write_text(json.dumps([names[1], names[0], names[2]]))
    with pytest.raises(DataError, match="another order: number 0 is "):
        evaluate(run, coloured(train=2, test=1))


def test_data_that_has_changed_is_noticed(run, coloured):
    path = run.path / record.ENVIRONMENT
    made = json.loads(path.read_text())
    made["data"]["source"] = str(coloured(seed=5))
    path.write_text(json.dumps(made))
    with pytest.raises(DataError, match="not the data that"):
        evaluate(run, tta="flip")


def test_only_a_finished_run_is_judged(run, tmp_path):
    (run.path / record.SUMMARY).unlink()
    for verb in (evaluate, onecycle.gallery, onecycle.label_errors):
        with pytest.raises(RecipeError, match="not finished: onecycle train --resume"):
            verb(run)
        with pytest.raises(RecipeError, match="no run is there"):
            verb(tmp_path)
    assert onecycle.load(run.path).recipe == run.recipe
    with pytest.raises(RecipeError, match="no run is there"):
        onecycle.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("test_probabilities.npy", b"\x93NUMPY", {}),
        ("test_probabilities.npy", b"", {}),
        ("test_labels.npy", None, {}),
        (record.WEIGHTS, b"{}", {"tta": "flip"}),
    ],
)
def test_a_damaged_run_is_named(run, name, content, options):
    path = run.path / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DiskError, match=name):
        evaluate(run, **options)


def test_random_states_are_left_alone(run):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    evaluate(run, tta="flip")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_a_handle_judges_itself_and_writes_nothing_with_its_figures(run):
    before = sorted(run.path.rglob("*"))
    labels = [text.get_text() for text in run.confusion().axes[0].get_yticklabels()]
    assert labels == [name.replace("$", r"\$") for name in run_classes(run)]
    run.top_losses(5)
    assert sorted(run.path.rglob("*")) == before
    assert run.evaluate(threads=1, quiet=True) == evaluate(run)


def command(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["onecycle", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_the_command_line_prints_the_figures(run, capsys, monkeypatch):
    code, out, err = command(capsys, monkeypatch, "evaluate", run.path, "--json")
    assert code == 0 and json.loads(out) == evaluate(run).figures and err == ""
    _, out, err = command(capsys, monkeypatch, "evaluate", run.path, "--tta", "flip", *ONE)
    assert "accuracy" in out and "flip test-time augmentation, 2 views" in out
    assert "predicting 30 test images" in err
    code, out, err = command(capsys, monkeypatch, "evaluate", run.path, "--tta", "flop")
    assert (code, out) == (2, "") and "did you mean 'flip'" in err
