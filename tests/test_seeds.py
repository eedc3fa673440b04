"""Several seeds: a run each, kept when interrupted, and the spread of all their figures."""

import json
import os
import shutil
import signal

import numpy as np
import pytest

import onecycle
from onecycle import files, machine
from onecycle.api import seeds
from onecycle.errors import DataError, DiskError, InterruptedRun, OnecycleError, RecipeError
from onecycle.run import conduct, record

TINY = ["model.width=4", "epochs=1", "schedule.peak_epoch=0.5", "batch_size=256"]
OPTIONS = {"settings": TINY, "precision": "fp32", "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three seeds of a tiny recipe, trained once for this file."""
    folder = tmp_path_factory.mktemp("seeds") / "three"
    return onecycle.train("digits", seeds=3, seed=4, val_fraction=0.1, out=folder, **OPTIONS)


def test_each_seed_is_a_run_and_the_figures_are_their_spread(finished):
    assert [run.path.name for run in finished.runs] == ["seed-4", "seed-5", "seed-6"]
    assert finished.summary["seeds"] == [4, 5, 6]
    for key in ("test_accuracy", "val_accuracy", "gap"):
        values = [run.summary[key] for run in finished.runs]
        found = finished.summary[key]
        assert found["mean"] == pytest.approx(np.mean(values))
        assert found["std"] == pytest.approx(np.std(values, ddof=1))
        assert found["low"] < found["mean"] < found["high"]
    recalls = []
    for run in finished.runs:
        labels = np.load(run.path / "test_labels.npy")
        right = run.probabilities.argmax(axis=1) == labels
        recalls.append(right[labels == 3].mean())
    assert finished.summary["per_class"]["3"]["recall"]["mean"] == pytest.approx(np.mean(recalls))


def test_all_seeds_compute_alike(tmp_path, monkeypatch):
    """Though the comparison of precisions comes out otherwise the next time."""
    answers = iter(["fp32", *["bf16"] * 9])
    monkeypatch.setattr(machine, "_best_precision", lambda _: (next(answers), "it seems so"))
    options = OPTIONS | {"precision": "auto"}
    runs = onecycle.train("digits", seeds=2, out="two", **options).runs
    assert [run.summary["precision"] for run in runs] == ["fp32", "fp32"]


def test_a_seed_is_the_run_that_it_would_be_alone(finished):
    alone = onecycle.train("digits", seed=5, val_fraction=0.1, out="alone", **OPTIONS)
    assert (alone.probabilities == finished.runs[1].probabilities).all()


def test_what_is_missing_after_an_interruption_is_made_and_the_rest_kept(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "broken")
    broken = tmp_path / "broken"
    (broken / record.SUMMARY).unlink()
    (broken / "seed-5" / record.SUMMARY).unlink()  # killed during the last evaluation
    shutil.rmtree(broken / "seed-6" / record.CHECKPOINTS)  # killed before the first save
    (broken / "seed-6" / record.SUMMARY).unlink()
    kept = (broken / "seed-4" / record.SUMMARY).stat().st_mtime_ns
    again = onecycle.resume(broken, quiet=True)
    assert (broken / "seed-4" / record.SUMMARY).stat().st_mtime_ns == kept
    for key in ("test_accuracy", "per_class", "seeds"):
        assert again.summary[key] == finished.summary[key]
    for one, other in zip(again.runs, finished.runs, strict=True):
        assert (one.probabilities == other.probabilities).all()


def test_seeds_of_other_data_or_another_recipe_are_not_mixed(coloured, tmp_path):
    pictures = tmp_path / "pets"
    shutil.copytree(coloured(), pictures)
    two = tmp_path / "two"
    onecycle.train("davidnet", pictures, seeds=2, out=two, **OPTIONS)
    (two / record.SUMMARY).unlink()
    shutil.rmtree(two / "seed-1")
    next(pictures.rglob("train/*/00.png")).unlink()
    with pytest.raises(DataError, match="is not the data that the runs before were trained on"):
        onecycle.resume(two, quiet=True)
    made = files.read_json(two / record.RECIPE)
    made["recipe"]["label_smoothing"] = 0.1
    files.write_json(two / record.RECIPE, made)
    with pytest.raises(RecipeError, match="is not the recipe of "):
        onecycle.resume(two, quiet=True)


def test_variants_of_an_ablation_are_of_one_data_set(coloured, tmp_path):
    pictures, options = tmp_path / "pets", OPTIONS | {"ingredients": ["crop"], "seeds": 1}
    shutil.copytree(coloured(), pictures)
    study = {"out": tmp_path / "study", "recipe": "davidnet", **options}
    onecycle.ablate(data=pictures, **study)
    shutil.rmtree(tmp_path / "study" / "without-crop")
    next(pictures.rglob("train/*/00.png")).unlink()
    with pytest.raises(DataError, match="its runs were trained on other data"):
        onecycle.ablate(data=pictures, **study)


def test_what_is_interrupted_says_how_all_of_it_goes_on(tmp_path, monkeypatch, capsys):
    def interrupted(live, *_):
        os.kill(os.getpid(), signal.SIGINT)
        return judge(live, *_)

    judge = conduct._judge_epoch
    monkeypatch.setattr(conduct, "_judge_epoch", interrupted)
    options = OPTIONS | {"settings": [*TINY, "epochs=2"]}
    with pytest.raises(InterruptedRun, match=r"go on with: onecycle train --resume two$"):
        onecycle.train("digits", seeds=2, out="two", **options | {"quiet": False})
    assert "Ctrl-C and: onecycle train --resume two\n" in capsys.readouterr().err
    with pytest.raises(InterruptedRun, match=r"go on with: the same onecycle ablate with --out a$"):
        onecycle.ablate("digits", ingredients=["crop"], seeds=1, out="a", **options)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert onecycle.resume("two", quiet=True).summary["seeds"] == [0, 1]


@pytest.mark.parametrize("verb", [onecycle.evaluate, onecycle.report, onecycle.doctor])
def test_a_verb_of_one_run_says_that_there_are_several(finished, verb):
    with pytest.raises(RecipeError, match="several runs are there: name one, as ") as said:
        verb(finished.path, quiet=True) if verb != onecycle.doctor else verb(finished.path)
    assert onecycle.load(str(said.value).rpartition(" as ")[2]).summary["seed"] == 4


def test_the_folder_of_several_seeds_is_held_before_anything_is_written(tmp_path, monkeypatch):
    held = []
    write = files.write_json

    def watched(path, content):
        with pytest.raises(OnecycleError, match="is being written by process"):
            files.FolderLock(path.parent)
        held.append(path.name)
        write(path, content)

    monkeypatch.setattr(files, "write_json", watched)
    monkeypatch.setattr(seeds, "_finish_all", lambda *_: None)
    onecycle.train("digits", seeds=2, out=tmp_path / "two", **OPTIONS)
    assert held == [record.RECIPE, record.SEEDS]
    files.FolderLock(tmp_path / "two").release()


@pytest.mark.parametrize("content", ["{}", "[]", '{"seeds": ["x"], "setup": {}}'])
def test_a_damaged_list_of_seeds_ends_in_one_line(finished, tmp_path, content):
    shutil.copy(finished.path / record.RECIPE, tmp_path)
    (tmp_path / record.SEEDS).write_text(content)
    with pytest.raises(DiskError, match=r"seeds\.json: it is damaged"):
        onecycle.resume(tmp_path, quiet=True)


def test_seeds_are_listed_and_compared_as_a_group(finished, tmp_path):
    found = onecycle.results(finished.path)
    assert [row["seed"] for row in found.rows] == [4, 5, 6]
    shutil.copytree(finished.path, tmp_path / "copy")
    (row,) = onecycle.results(finished.path, tmp_path / "copy").accuracy_differences
    assert row["test"] == "Welch" and row["difference"] == 0 and not row["significant"]


def test_a_number_of_seeds_that_cannot_be_is_refused(monkeypatch):
    with pytest.raises(RecipeError, match="--seeds 0"):
        onecycle.train("digits", seeds=0, **OPTIONS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="without torchrun"):
        onecycle.train("digits", seeds=2, **OPTIONS)
    with pytest.raises(RecipeError, match="torchrun needs --out"):
        onecycle.train("digits", **OPTIONS)


def test_the_command_prints_means_with_intervals(finished, capsys, monkeypatch):
    from onecycle.cli import training

    monkeypatch.setattr("onecycle.resume", lambda *_, **__: finished)
    training.train(resume="x")
    out = capsys.readouterr().out
    accuracy = finished.summary["test_accuracy"]
    assert f"{accuracy['mean']:.2%}  (std {100 * accuracy['std']:.2f} points" in out
    assert "n = 3" in out and out.count("\n") > 12
    training.train(resume="x", json_=True)
    assert json.loads(capsys.readouterr().out)["seeds"] == [4, 5, 6]
