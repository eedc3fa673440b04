"""A run that begins with the weights of another, and the networks that come with the package."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import onecycle
from onecycle import files, machine
from onecycle.api import single
from onecycle.errors import DiskError, InterruptedRun, OnecycleError, RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import parse
from onecycle.run import find_lr, initial, record, reopen
from onecycle.run.conduct import conduct
from onecycle.run.events import Progress
from onecycle.run.job import Job
from onecycle.run.range_test import choose_sweep
from onecycle.use import pretrained

# With these the weights stay as they were, so that one sees what they were.
STANDING = ("schedule.lr_peak=1e-30", "schedule.lr_start=1e-30", "schedule.lr_final=1e-30")


def weights(run):
    return load_file(run.path / record.WEIGHTS)


def train(data, judged, *changes, **options):
    options = {"precision": "fp32", "threads": 1, "quiet": True, "epochs": 1} | options
    recipe = str(judged.path / record.RECIPE)
    return onecycle.train(recipe, data, settings=list(changes), init=judged, **options)


@pytest.fixture
def others(coloured):
    """Images of two classes, one of them known to the run `judged`."""
    return coloured(classes=("cat", "zebra"), seed=1)


def test_all_but_the_head_is_taken_over_where_classes_differ(others, judged):
    run = train(others, judged, *STANDING)
    before, after = weights(judged), weights(run)
    made = files.read_json(run.path / record.ENVIRONMENT)["init"]
    anew = {name for name in after if before[name].shape != after[name].shape}
    assert set(made["anew"]) == anew and len(anew) >= 1
    for name in after.keys() - anew:
        if "running" not in name:  # which follow the images
            assert torch.equal(before[name], after[name]), name
    assert made["run"] == str(judged.path)
    assert made["weights_sha256"] == files.sha256_file(judged.path / record.WEIGHTS)
    assert made["recipe_digest"] == judged.recipe.digest()


def test_the_head_is_taken_over_too_where_classes_are_the_same(coloured, judged):
    data = coloured(seed=5)
    run = train(data, judged, *STANDING)
    assert files.read_json(run.path / record.ENVIRONMENT)["init"]["anew"] == []
    after = weights(run)
    last = next(name for name in reversed(after) if after[name].ndim == 2)
    assert torch.equal(weights(judged)[last], after[last])


def test_pixels_are_standardized_as_the_weights_know_it(others, judged):
    mean = weights(train(others, judged))["normalize.mean"]
    assert torch.equal(mean, weights(judged)["normalize.mean"])
    known = files.read_json(judged.path / record.ENVIRONMENT)["data"]["mean"]
    np.testing.assert_allclose(mean.numpy(), known, rtol=1e-6)


def test_a_resumed_run_does_not_need_its_source(others, judged, tmp_path, monkeypatch):
    whole = train(others, judged, out="whole")
    source = onecycle.load(shutil.copytree(judged.path, tmp_path / "source"))

    def stopped(job, checkpoint=None):
        for event in conduct(job, checkpoint):
            yield event
            if isinstance(event, Progress):
                raise InterruptedRun("as if killed", 9)

    with monkeypatch.context() as patch:
        patch.setattr(single, "conduct", stopped)
        with pytest.raises(InterruptedRun):
            train(others, source, out="broken")
    shutil.rmtree(source.path)
    again = onecycle.resume("broken", quiet=True)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name


def test_the_range_test_begins_with_the_weights_too(tiny, make_recipe, machine, monkeypatch):
    seen = []
    begin = initial.Initial({}, (), {})
    monkeypatch.setattr(initial.Initial, "put_into", lambda self, model: seen.append(model))
    job = Job(make_recipe(), tiny, machine, 0, None, init=begin)
    sweep = choose_sweep(job.recipe, len(tiny.train))
    find_lr.curves(job, [0], sweep, lambda *_: None)
    assert len(seen) == 1


def test_another_network_is_refused_in_a_line(others, judged, command):
    code, _, err = command("train", "--data", others, "--init", judged.path, "--recipe", "davidnet")
    assert code == 2 and "model.width" in err and "--recipe" in err and err.count("\n") < 4
    code, _, err = command("train", "--data", others, "--init", "nothing-here")
    assert code == 2 and "nothing-here: no run is there" in err and err.count("\n") == 1


def test_damaged_weights_are_not_begun_with(others, judged, tmp_path):
    run = shutil.copytree(judged.path, tmp_path / "run")
    content = bytearray((run / record.WEIGHTS).read_bytes())
    content[-100] ^= 1
    (run / record.WEIGHTS).write_bytes(content)
    with pytest.raises(DiskError, match=r"model\.safetensors: its checksum does not hold"):
        onecycle.train(judged.recipe, others, init=run, quiet=True)


def test_a_report_says_what_a_run_began_with(others, judged):
    run = train(others, judged, *STANDING)
    page, card = run.path / "report.html", run.path / "card.md"
    onecycle.report(run.path, card=card, quiet=True)
    assert f"--init {judged.path}" in page.read_text()
    assert f"trained from the weights of {judged.path}" in card.read_text()


def test_the_command_line_names_what_begins_anew(others, judged, command):
    words = ["--recipe", judged.path / record.RECIPE, "--epochs", "0.5", "--threads", "1"]
    code, _, err = command("train", "--data", others, "--init", judged.path, *words)
    assert code == 0 and f"from the final weights of {judged.path}; anew, for other classes" in err


@pytest.fixture
def packed(judged, tmp_path, monkeypatch):
    """The run `judged` as a network of the package, called tiny."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    return pretrained.pack(judged, "tiny", "# A card")


def test_what_is_packed_predicts_as_the_run_and_tells_nothing_of_its_machine(packed, judged):
    where = machine.choose("cpu", "fp32", 1)
    assert pretrained.names() == ["tiny"] and (packed / "card.md").read_text() == "# A card"
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (ours,) = judged.predict(image, threads=1)
    (found,) = onecycle.predict(None, image, pretrained="tiny", threads=1, quiet=True)
    assert found.label == ours.label and found.calibrated == ours.calibrated
    assert found.probability == pytest.approx(ours.probability, abs=2e-3)
    assert reopen.network(packed, where).normalize.mean.dtype == torch.float32
    text = "".join(path.read_text() for path in packed.glob("*.json"))
    for told in (str(judged.path), str(judged.path.parent), files.socket.gethostname() + '"'):
        assert told not in text
    sizes = [(folder / record.WEIGHTS).stat().st_size for folder in (packed, judged.path)]
    assert sizes[0] < 0.7 * sizes[1]


def test_it_can_be_begun_with_by_name(packed, others, judged):
    recipe = str(judged.path / record.RECIPE)
    options = {"precision": "fp32", "threads": 1, "quiet": True, "epochs": 1}
    run = onecycle.train(recipe, others, init="tiny", **options)
    assert files.read_json(run.path / record.ENVIRONMENT)["init"]["run"] == str(packed)


def test_the_command_line_predicts_by_name(packed, judged, command, tmp_path):
    Image.new("RGB", (20, 16), "red").save(tmp_path / "photo.png")
    code, out, err = command("predict", "--pretrained", "tiny", "photo.png", "--json")
    assert code == 0 and json.loads(out)[0]["file"] == "photo.png", err
    code, out, _ = command("predict", "--pretrained", "tiny", "photo.png")
    assert code == 0 and "photo.png" in out
    code, _, err = command("predict", "--pretrained", "tinny", "photo.png")
    assert code == 2 and "did you mean 'tiny'" in err and err.count("\n") == 1
    with pytest.raises(RecipeError, match="either a run or --pretrained"):
        onecycle.predict(judged, "photo.png", pretrained="tiny")


def test_weights_too_large_for_half_precision_are_refused(judged, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "pretrained")
    run = shutil.copytree(judged.path, tmp_path / "run")
    tensors = load_file(run / record.WEIGHTS)
    tensors["fc.weight"][0, 0] = 1e6
    content = pretrained.save(tensors)
    files.write_bytes(run / record.WEIGHTS, content)
    told = files.read_json(run / record.SUMMARY) | {"weights_sha256": files.sha256_bytes(content)}
    files.write_json(run / record.SUMMARY, told)
    with pytest.raises(OnecycleError, match=r"fc.weight: 1e\+06 is too large"):
        pretrained.pack(run, "tiny", "")
    assert pretrained.names() == []


@pytest.mark.parametrize("name", pretrained.names())
def test_a_shipped_network_is_a_recipe_of_the_catalogue_small_and_says_how_good_it_is(name):
    folder = pretrained.FOLDER / name
    kept = files.read_json(folder / record.RECIPE)["recipe"]
    assert parse(kept, name).digest() == book.find(kept["name"]).digest()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    accuracy = files.read_json(folder / record.SUMMARY)["test_accuracy"]
    assert f"{accuracy:.2%}" in (folder / "card.md").read_text()
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    (found,) = onecycle.predict(None, noise, pretrained=name, threads=1, quiet=True)
    assert found.label in files.read_json(folder / record.CLASSES)


def test_cifar10_is_shipped():
    assert "cifar10" in pretrained.names()
