"""`summary`: what training a recipe would mean, without data."""

import json
import sys

import numpy as np
import pytest

import onecycle
from onecycle import cli
from onecycle.datasets.decode import LARGEST
from onecycle.errors import DiskError, RecipeError
from onecycle.recipe import book
from onecycle.run import estimate
from onecycle.training.schedule import timetable

SMALL = {"model.width": 2}


@pytest.fixture
def instant(machine, monkeypatch):
    """Nothing is timed: an image takes a millisecond on a machine that is not looked at."""
    monkeypatch.setattr(estimate, "image_seconds", lambda *_: 0.001)
    monkeypatch.setattr("onecycle.machine.choose", lambda: machine)


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs the command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["onecycle", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", book.names())
def test_every_recipe_is_summed_up_for_data_of_cifar10s_size(instant, name):
    made = onecycle.summary(name)
    recipe = book.find(name)
    assert made.recipe == recipe
    table = timetable(recipe, 50_000)
    rates = [table.lr(step) for step in range(table.total_steps)]
    assert made.rates == {"start": rates[0], "peak": max(rates), "final": rates[-1]}
    trained = table.total_steps * recipe.batch_size
    judged = 10_000 * recipe.epochs + 50_000
    assert made.seconds == pytest.approx(0.001 * (trained + judged / 3))
    said = json.loads(json.dumps(made.to_dict()))
    assert (said["rates"], said["steps"]) == (made.rates, table.total_steps)
    assert said["parameters"] == made.parameters == sum(row["parameters"] for row in said["layers"])
    assert said["multiply_adds"] == made.multiply_adds
    assert f"{made.parameters:,}" in str(made) and f"steps     {table.total_steps:,}," in str(made)


def test_classes_size_epochs_and_settings_are_those_asked_for(instant):
    made = onecycle.summary("davidnet", 100, 64, epochs=12, settings=SMALL)
    assert made.recipe.name == "davidnet+custom" and made.recipe.schedule.peak_epoch == 2.5
    assert made.timetable.total_steps == 12 * 98
    assert made.layers[0].shape == (3, 64, 64) and made.layers[-1].shape == (100,)
    assert onecycle.summary(made.recipe, 100, 64).layers == made.layers


def test_time_is_measured_on_few_images(instant, monkeypatch):
    seen = []
    monkeypatch.setattr(
        estimate, "image_seconds", lambda recipe, data, machine: seen.append(data) or 0.0
    )
    onecycle.summary("davidnet", 1000, LARGEST, settings=SMALL)
    (noise,) = seen
    assert len(noise.classes) == 1000 and noise.image_size == LARGEST
    assert noise.train.pixels.nbytes < 4e6 and len(np.unique(noise.train.labels)) == 1000


def test_a_real_measurement_grows_with_the_length(machine, monkeypatch):
    monkeypatch.setattr("onecycle.machine.choose", lambda: machine)
    made = onecycle.summary("digits", epochs=1, settings=SMALL, image_size=16)
    shortest = onecycle.summary("digits", epochs=1e-4, settings=SMALL, image_size=16)
    longer = onecycle.summary("digits", epochs=50, settings=SMALL, image_size=16)
    assert 0 < shortest.seconds < made.seconds < longer.seconds


def test_pictures_are_written_into_the_folder(instant, tmp_path):
    onecycle.summary("davidnet", settings=SMALL, plot=tmp_path / "a" / "b")
    written = sorted((tmp_path / "a" / "b").iterdir())
    assert [path.name for path in written] == ["architecture.png", "schedule.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"classes": 1}, "--classes 1"),
        ({"classes": 10**9}, "--classes 1000000000"),
        ({"image_size": 15}, "--image-size 15"),
        ({"image_size": 10**9}, "--image-size 1000000000"),
        ({"recipe": "davidnt"}, "davidnet"),
        ({"epochs": -1}, "--epochs -1"),
        ({"settings": {"model.name": "resnet18", "model.head": "gap"}}, "head says nothing"),
    ],
)
def test_what_cannot_be_summed_up_is_refused_in_a_line(instant, arguments, said):
    with pytest.raises(RecipeError) as caught:
        onecycle.summary(**{"recipe": "davidnet", "settings": SMALL, **arguments})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_padding_too_large_for_the_images_is_refused():
    with pytest.raises(RecipeError, match=r"augment\.pad 16"):
        onecycle.summary("davidnet", image_size=16, settings={**SMALL, "augment.pad": 16})


def test_pictures_that_cannot_be_written(instant, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DiskError, match="file"):
        onecycle.summary("davidnet", settings=SMALL, plot=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_command_prints_what_the_function_gives(command, instant):
    options = ["davidnet-sgd", "--set", "model.width=2", "--classes", "3", "--epochs", "6"]
    made = onecycle.summary("davidnet-sgd", 3, epochs=6, settings=SMALL)
    code, out, err = command("summary", *options)
    assert (code, err) == (0, "") and out == f"{made}\n"
    code, out, err = command("summary", *options, "--json", "--plot", "drawn")
    assert (code, err) == (0, "") and json.loads(out)["rates"] == made.rates
    code, out, err = command("summary", "davidnet-sdg")
    assert code == 2 and out == "" and "did you mean 'davidnet-sgd'" in err


@pytest.mark.parametrize("per", ["batch", "epoch"])
def test_the_schedule_is_drawn_against_steps_and_epochs(instant, per):
    settings = {**SMALL, "schedule.per": per, "schedule.momentum_at_peak": 0.8}
    made = onecycle.summary("davidnet", settings=settings)
    rate, momentum = made.schedule_figure().axes
    (line,), (moving,) = rate.lines, momentum.lines
    steps = range(made.timetable.total_steps)
    assert list(line.get_ydata()) == [made.timetable.lr(step) for step in steps]
    assert list(moving.get_ydata()) == [made.timetable.momentum(step, 0.9) for step in steps]
    (epochs,) = rate.child_axes
    assert epochs.get_xlabel() and momentum.get_xlabel() == "step"
    made.schedule_figure().canvas.draw()
    assert moving.get_label() == "adamw"
