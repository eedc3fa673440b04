"""A run from first step to summary: what it records, and what stops it."""

import json

import numpy as np
import pytest
import torch
from digits_runs import job, train, weights
from safetensors.torch import load_file

import onecycle
from onecycle import machine
from onecycle.api.recipes import choose_recipe
from onecycle.datasets.load import load
from onecycle.errors import DivergedError, RecipeError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import build
from onecycle.run import checkpoint, finish, record
from onecycle.run.conduct import conduct
from onecycle.run.events import EpochDone


def test_a_run_folder_holds_everything():
    run = train(seed=3)
    assert run.path.name == "digits+custom-1"
    assert json.loads((run.path / record.CLASSES).read_text()) == list("0123456789")
    assert run.recipe.digest() == run.summary["recipe_digest"]
    environment = json.loads((run.path / record.ENVIRONMENT).read_text())
    assert environment["machine"]["precision"] == "fp32" and environment["seed"] == 3
    rows = run.metrics
    assert [row["epoch"] for row in rows] == [1, 2]
    labels = np.load(run.path / "test_labels.npy")
    assert metrics.accuracy(run.probabilities, labels) == run.test_accuracy
    assert run.probabilities.dtype == np.float32
    np.testing.assert_allclose(run.probabilities.sum(axis=1), 1, atol=1e-5)
    assert run.summary["gap"] == run.summary["train_accuracy"] - run.summary["test_accuracy"]
    assert (run.path / record.CURVES).read_bytes().startswith(b"\x89PNG")


def test_the_weights_that_are_kept_give_the_figures_that_are_kept(monkeypatch):
    monkeypatch.setattr(finish, "AT_ONCE", 500)  # so that training images come in several parts
    run = train()
    data = load("digits")
    model = build(run.recipe.model, data, seed=99)
    model.load_state_dict(load_file(run.path / record.WEIGHTS))
    model.to(memory_format=torch.channels_last)
    where = machine.choose("cpu", "fp32", 1)
    again = probabilities(model, data.test, where)
    np.testing.assert_allclose(again, run.probabilities, atol=1e-6)
    trained = metrics.accuracy(probabilities(model, data.train, where), data.train.labels)
    assert trained == run.summary["train_accuracy"]


def test_the_journal_has_a_line_a_step_and_the_rates_of_the_timetable():
    run = train()
    events = [json.loads(line) for line in (run.path / record.EVENTS).read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, run.summary["steps"] + 1))
    table = onecycle.Recipe.model_validate(run.recipe.model_dump()).schedule
    assert steps[0]["lr"] == table.lr_start and steps[-1]["lr"] == table.lr_final
    seen = sum(event["images"] for event in steps if event["epoch"] == 0)
    assert seen == 1437
    epoch = run.metrics[0]
    correct = sum(event["correct"] for event in steps if event["epoch"] == 0)
    assert epoch["train_accuracy"] == correct / seen


def test_the_same_seed_gives_the_same_weights_and_another_others():
    first, again, other = train(), train(), train(seed=1)
    assert weights(first) == weights(again) != weights(other)
    assert [run.path.name[-1] for run in (first, again, other)] == ["1", "2", "3"]


def test_validation_part_is_judged_each_epoch_and_the_test_part_once_at_the_end():
    run = train(val_fraction=0.1)
    assert "val_accuracy" in run.metrics[0] and "test_accuracy" not in run.metrics[0]
    assert {"val_accuracy", "test_accuracy"} <= set(run.summary)
    assert run.summary["train_images"] < 1437


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RecipeError, match="not empty"):
        train(out="mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    diverging = job(tmp_path / "run", **{"schedule.lr_peak": 1e30, "schedule.lr_start": 1e30})
    with pytest.raises(DivergedError, match="at step"):
        for _ in conduct(diverging):
            pass
    kept = checkpoint.newest(diverging.folder)
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())


@pytest.mark.parametrize("module", ["conduct", "finish"])
def test_predictions_that_are_not_finite_stop_the_run(tmp_path, monkeypatch, module):
    """As where running statistics lag so far behind that only judging overflows."""

    def lost(*arguments, **options):
        return probabilities(*arguments, **options) * np.float32(np.nan)

    monkeypatch.setattr(f"onecycle.run.{module}.probabilities", lost)
    epochs = 0
    with pytest.raises(DivergedError, match=r"predicts after step .* is no longer finite"):
        for event in conduct(job(tmp_path / "run")):
            epochs += isinstance(event, EpochDone)
    assert epochs == (2 if module == "finish" else 0)
    assert not (tmp_path / "run" / record.SUMMARY).exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('groups=[{match="foo*",optimizer="adamw"}]', "no group matches the parameter"),
        ('schedule={kind="triangular",lr_start=1e-4,lr_peak=1e-3,cycle_epochs=0.1}', "no room"),
    ],
)
def test_a_recipe_that_cannot_be_leaves_no_folder(tmp_path, setting, said):
    with pytest.raises(RecipeError, match=said):
        onecycle.train("digits", settings=setting, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_settings_are_texts_numbers_or_lists():
    given = {"resolution": ((0.0, 0.5), (1.0, 1.0)), "drop_last": True, "model.width": 4}
    found = choose_recipe("davidnet", "digits", None, given)
    assert (found.resolution, found.drop_last, found.model.width) == (*given.values(),)
    assert choose_recipe("davidnet", "digits", None, "model.width=5").model.width == 5
