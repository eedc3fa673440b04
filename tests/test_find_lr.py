"""`find_lr`: what may be asked of a range test, what is kept of it, and training with it."""

import json
import shutil

import numpy as np
import pytest

import onecycle
from onecycle.errors import RecipeError
from onecycle.run import find_lr, range_test, record
from onecycle.run.range_test import Point, Sweep, choose_sweep
from onecycle.training import steer, suggest

# What is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "steps"), [(100, 90), (32 * 97, 97), (32 * 97 + 1, 98), (32 * 5000, 200)]
)
def test_a_test_costs_an_epoch_within_limits(make_recipe, images, steps):
    """Its steered part included."""
    steered = steer.steered(make_recipe(), images).total_steps
    assert choose_sweep(make_recipe(), images) == Sweep(1e-5, 1.0, steps - steered)


def test_a_test_per_epoch_goes_around_the_recipes_peak(make_recipe):
    sweep = choose_sweep(make_recipe("schedule.lr_peak=0.1"), 96, per_epoch=True)
    assert sweep == Sweep(pytest.approx(0.02), pytest.approx(0.2), 10, True, True)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": 0.0}, "--start 0 "),
        ({"start": -1.0}, "--start -1"),
        ({"start": 2.0}, "--start 2 --end 1"),
        ({"end": 1e-5}, "must rise"),
        ({"end": float("inf")}, "--end inf"),
        ({"end": float("nan")}, "--end nan"),
        ({"steps": 9}, "--steps 9: give at least 10"),
        ({"steps": 2, "per_epoch": True}, "--steps 2: give at least 3"),
    ],
)
def test_rates_that_cannot_be_swept_are_refused(make_recipe, asked, said):
    with pytest.raises(RecipeError, match=said):
        choose_sweep(make_recipe(), 96, **asked)


# What is kept --------------------------------------------------------------------------------

QUICK = {
    "settings": ["model.width=4", "batch_size=16", "ghost_batch=0"],
    **{"precision": "fp32", "threads": 1, "quiet": True},
}


@pytest.fixture(scope="module")
def digits_test(tmp_path_factory):
    """A range test of two seeds on the digits."""
    out = tmp_path_factory.mktemp("range") / "test"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out.parent)
        return onecycle.find_lr(**QUICK, steps=60, seeds=2, out=out)


def test_the_folder_holds_curve_picture_and_findings(digits_test):
    found = json.loads((digits_test.path / record.LR_FOUND).read_text())
    assert found == digits_test.found
    assert (digits_test.path / record.LR_PLOT).read_bytes().startswith(b"\x89PNG")
    rows = digits_test.points
    assert {row["seed"] for row in rows} == {0, 1}
    for seed in (0, 1):
        mine = [row for row in rows if row["seed"] == seed]
        assert [row["smoothed"] for row in mine] == list(suggest.smooth([r["loss"] for r in mine]))
    assert found["seeds"] == [0, 1]
    assert found["sweep"] == {
        "start": 1e-5,
        "end": 1.0,
        "steps": 60,
        "linear": False,
        "per_epoch": False,
    }


def test_the_rates_for_one_cycle_follow_from_the_chosen_rule(digits_test):
    found = digits_test.found
    chosen = next(s for s in found["suggestions"] if s["rule"] == steer.NAME == found["rule"])
    assert chosen["lrs"] == [
        steer.read([row["lr"] for row in digits_test.steered if row["seed"] == seed])
        for seed in (0, 1)
    ]
    assert digits_test.lr_max == float(f"{np.sqrt(np.prod(chosen['lrs'])):.2g}")
    assert digits_test.suggestions[steer.NAME] == chosen["lr"]
    assert 1e-3 < digits_test.lr_max < 0.3
    assert digits_test.lr_min == pytest.approx(digits_test.lr_max / 10)  # as in the recipe


def test_folders_are_counted_and_never_overwritten(tmp_path, digits_test):
    (tmp_path / "runs" / "digits+custom-lr-7").mkdir(parents=True)
    assert onecycle.find_lr(**QUICK, steps=60).path.name == "digits+custom-lr-8"
    with pytest.raises(RecipeError, match="not empty"):
        onecycle.find_lr(**QUICK, out=digits_test.path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"end": 1e-4}, "raise --end above 0.0001"),
        ({"start": 10.0, "end": 1e4}, "lower --start below 10"),
    ],
)
def test_a_sweep_that_shows_no_descent_says_so_and_steering_does_not_mind(digits_test, asked, said):
    test = onecycle.find_lr(**QUICK | {"steps": 30} | asked)
    known = [each for each in test.found["suggestions"] if each["rule"] != steer.NAME]
    assert len(known) == 4 and all(said in each["refused"] for each in known)
    first = [row for row in digits_test.steered if row["seed"] == 0]
    assert test.steered == first and test.lr_max > 0


def test_steering_that_goes_astray_says_so_and_shows_the_curve(tmp_path):
    still = 'groups=[{match="*",optimizer="adamw",lr_scale=0.0}]'
    asked = QUICK | {"settings": [*QUICK["settings"], still]}
    with pytest.raises(RecipeError, match="changed by 0 % a step at 1e-05; name a rate") as raised:
        onecycle.find_lr(**asked, steps=30, out="test")
    text = str(raised.value)
    assert "\n" not in text and "test/lr_find.png" in text
    assert (tmp_path / "test" / record.LR_PLOT).exists()
    found = json.loads((tmp_path / "test" / record.LR_FOUND).read_text())
    assert found["lr_max"] is None and found["lr_min"] is None


def test_a_test_per_epoch_takes_the_rate_of_the_highest_accuracy(make_recipe):
    recipe = make_recipe("schedule.lr_start=1e-3", "schedule.lr_peak=1e-2")
    sweep = Sweep(0.01, 0.05, 5, True, True)

    def judged(*accuracies):
        rates = np.linspace(0.01, 0.05, 5).tolist()
        points = [Point(lr, 2.0, a) for lr, a in zip(rates, accuracies, strict=True)]
        return find_lr.judge([find_lr.Curve(0, tuple(points))], sweep, recipe)

    found = judged(0.2, 0.3, 0.4, 0.3, 0.2)
    assert (found["lr_max"], found["lr_min"]) == (0.03, 0.003)
    assert found["rule"] == "highest accuracy" and found["problem"] == ""
    assert "raise --end above 0.05" in judged(0.2, 0.3, 0.4, 0.5, 0.6)["problem"]
    assert "lower --start below 0.01" in judged(0.4, 0.3, 0.2, 0.2, 0.1)["problem"]


def test_data_with_a_validation_part_is_not_judged_on_it(coloured, tmp_path):
    folder = shutil.copytree(coloured(), tmp_path / "pets")
    shutil.copytree(folder / "test", folder / "val")
    options = {"quiet": True, "threads": 1, "precision": "fp32", "steps": 60, "end": 100.0}
    options |= {"settings": ["model.width=4", "batch_size=24"]}
    one = onecycle.find_lr("digits", folder, **options)
    shutil.rmtree(folder / "val")
    two = onecycle.find_lr("digits", folder, **options)
    assert one.points == two.points and "val_loss" not in one.points[0]
    assert one.steered == two.steered


def test_validation_images_judge_the_sweep_alone(digits_test):
    test = onecycle.find_lr(**QUICK, steps=10, val_fraction=0.1)
    assert "val_loss" in test.points[0]
    assert set(test.steered[0]) == {"seed", "lr", "loss", "accuracy", "update"}


def test_a_recipe_of_muon_gets_its_curve_and_no_rate(tmp_path):
    settings = ["model.width=4", "batch_size=24", "ghost_batch=24", "augment.pad=2"]
    with pytest.raises(RecipeError, match=r"no good for muon, .* keep its own rate"):
        onecycle.find_lr("fast", **QUICK | {"settings": settings}, steps=10)
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(record.read_table(folder / record.LR_TABLE)) == 10
    found = json.loads((folder / record.LR_FOUND).read_text())
    assert found["lr_max"] is None and (folder / record.LR_PLOT).exists()


def test_seeds_there_must_be(tmp_path):
    with pytest.raises(RecipeError, match="--seeds 0"):
        onecycle.find_lr(**QUICK, seeds=0)
    assert not (tmp_path / "runs").exists()


# Training with it ----------------------------------------------------------------------------


def test_training_takes_the_rate_that_a_test_finds_and_keeps_both(tmp_path, monkeypatch):
    monkeypatch.setattr(range_test, "FEWEST", 50 + steer.STEPS)
    monkeypatch.setattr(range_test, "MOST", 50 + steer.STEPS)
    options = {**QUICK, "epochs": 0.05}
    run = onecycle.train(**options, lr="auto", val_fraction=0.1)
    assert run.path.name == "digits+custom-1"
    found = json.loads((run.path / record.LR_FOUND).read_text())
    schedule = run.recipe.schedule
    assert (schedule.lr_start, schedule.lr_peak) == (found["lr_min"], found["lr_max"])
    assert run.recipe.digest() == run.summary["recipe_digest"] != found["recipe_digest"]
    assert (run.path / record.LR_PLOT).exists() and (run.path / record.LR_TABLE).exists()
    typed = onecycle.train(**options, lr=found["lr_max"], val_fraction=0.1)
    assert (typed.probabilities == run.probabilities).all()


@pytest.mark.parametrize("lr", ["fast", "0", "-1", "nan", "inf", ""])
def test_a_rate_that_is_none_is_refused(tmp_path, lr):
    with pytest.raises(RecipeError, match="lr"):
        onecycle.train(lr=lr)
    assert not (tmp_path / "runs").exists()
