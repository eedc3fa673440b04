"""Labels that don't fit are found by trainings that didn't see them, kept fold by fold."""

import shutil

import numpy as np
import pytest

import onecycle
from onecycle import files
from onecycle.api import labels as api
from onecycle.datasets.dataset import digest
from onecycle.datasets.load import load
from onecycle.errors import DataError, InterruptedRun
from onecycle.evaluation.label_errors import label_quality, suspected
from onecycle.reporting import plots
from onecycle.run import conduct, estimate, record
from onecycle.run.folds import FOLDS, folds, without

WRONG = 6


@pytest.fixture(scope="module")
def mislabelled(coloured, tmp_path_factory):
    """A run on three clear colours, six training images of which lie in another class."""
    folder = coloured(train=40, test=4, tint=120)
    for i in range(WRONG):
        source, target = ("cat", "naïve") if i % 2 else ("naïve", "$dog$ & co")
        path = folder / "train" / source / f"{i:02d}.png"
        path.rename(folder / "train" / target / f"wrong-{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONECYCLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(estimate, "ENOUGH_SECONDS", 0)
        settings = ["model.width=4", "batch_size=16", "ghost_batch=0", "schedule.peak_epoch=1"]
        return onecycle.train(
            "davidnet",
            folder,
            epochs=4,
            settings=settings,
            precision="fp32",
            threads=1,
            out=tmp_path_factory.mktemp("runs") / "run",
            quiet=True,
        )


@pytest.fixture
def run(mislabelled, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "ENOUGH_SECONDS", 0)
    monkeypatch.setattr(plots, "save", lambda figure, path: None)  # takes most of the time
    return onecycle.load(shutil.copytree(mislabelled.path, tmp_path / "run"))


def label_errors(run, count=WRONG, **options):
    return onecycle.label_errors(run, count, precision="fp32", threads=1, **options)


def folds_of(run):
    source = files.read_json(run.path / record.ENVIRONMENT)["data"]["source"]
    return folds(load(source), seed=0)


def test_every_image_is_held_out_once_and_classes_evenly(tiny):
    held = folds(tiny, seed=0)
    assert sorted(np.concatenate(held)) == list(range(len(tiny.train)))
    for positions in held:
        counts = np.bincount(tiny.train.labels[positions], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert all((a == b).all() for a, b in zip(held, folds(tiny, seed=0), strict=True))
    assert any(
        len(a) != len(b) or (a != b).any() for a, b in zip(held, folds(tiny, 1), strict=True)
    )


def test_a_fold_trains_on_the_rest_and_judges_what_it_lacked(tiny):
    held = folds(tiny, seed=0)[0]
    data = without(tiny, held)
    assert (data.test.images() == tiny.train.subset(held).images()).all()
    assert len(data.train) + len(held) == len(tiny.train)
    assert not set(data.train.rows) & set(data.test.rows) and data.val is None
    assert data.digest == digest(data.classes, data.train, data.test) != tiny.digest


def test_a_class_with_fewer_images_than_folds_is_named(make_data):
    with pytest.raises(DataError, match="class 'class0' has 3 training images"):
        folds(make_data(train=9), seed=0)


def test_labels_against_all_evidence_fit_least():
    draw = np.random.default_rng(0)
    labels = np.arange(300) % 3
    logits = draw.normal(size=(300, 3))
    logits[np.arange(300), labels] += 4
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    wrong = labels.copy()
    wrong[:10] = (labels[:10] + 1) % 3
    quality = label_quality(p, wrong)
    assert set(np.argsort(quality)[:10]) == set(range(10))
    assert suspected(p, wrong)[:10].sum() > 5 and not suspected(p, wrong)[10:].any()
    assert quality.min() >= 0 and quality.max() <= 1


def test_wrong_labels_are_found_and_finished_folds_kept(run, capsys, monkeypatch):
    found = label_errors(run, epochs=5)
    said = capsys.readouterr().err
    assert said.startswith("5 trainings of davidnet+custom") and "5 epochs on 96 images" in said
    named = [row["name"].split("/")[-1] for row in found.rows]
    assert sum(name.startswith("wrong") for name in named) == WRONG
    assert "cleanlab takes" in found.title
    qualities = [p.quality for p in found.pictures]
    assert qualities == sorted(qualities)
    (place,) = (run.path / record.LABEL_ERRORS).iterdir()
    judged = [record.read_predictions(place / f"fold-{n}", "test") for n in range(1, FOLDS + 1)]
    by_index = dict(
        zip(np.concatenate(folds_of(run)), np.concatenate([p for p, _ in judged]), strict=True)
    )
    for p in found.pictures:
        assert p.confidence == by_index[p.index].max(), "by the training that lacked it"
    monkeypatch.setattr(api, "drive", None)
    again = label_errors(run, epochs=5, actual="naïve")
    assert [row for row in found.rows if row["actual"] == "naïve"] == again.rows[: WRONG // 2]
    assert "trainings" not in capsys.readouterr().err


def test_an_interrupted_fold_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    other = onecycle.load(shutil.copytree(run.path, tmp_path / "other"))
    whole = label_errors(other, epochs=1, quiet=True)
    real = conduct._save

    def stop_in_the_third_fold(live):
        real(live)
        if live.job.folder.name == "fold-3" and live.state.step == 4:
            raise InterruptedRun("stopped; onecycle train --resume x", 15)

    monkeypatch.setattr(conduct, "_save", stop_in_the_third_fold)
    monkeypatch.setattr("onecycle.run.checkpoint.COST", 1e9)
    with pytest.raises(InterruptedRun, match="fold-3 of 5; the same command goes on") as stopped:
        label_errors(run, epochs=1, quiet=True)
    assert stopped.value.exit_code == 143
    monkeypatch.setattr(conduct, "_save", real)
    (place,) = (run.path / "label_errors").iterdir()
    assert len(list(place.glob("fold-*/summary.json"))) == 2
    assert label_errors(run, epochs=1, quiet=True).rows == whole.rows
    assert len(list(place.glob("fold-*/summary.json"))) == FOLDS
    assert "resume" in (place / "fold-3" / record.EVENTS).read_text()
