"""Ablation: every ingredient in turn, seed by seed, on held-out images; it can be gone on with."""

import json
import shutil

import pytest

import onecycle
from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.reporting import ablation
from onecycle.run import record

QUICK = ["model.width=4", "epochs=1", "schedule.peak_epoch=0.5", "batch_size=256"]


@pytest.mark.parametrize("name", [n for n in book.names() if book.find(n).ingredients])
def test_every_ingredient_of_the_catalogue_can_be_left_out(name):
    recipe = book.find(name)
    digests = {
        book.change(recipe, list(settings)).digest() for settings in recipe.ingredients.values()
    }
    assert len(digests) == len(recipe.ingredients) and recipe.digest() not in digests


def ablate(**options):
    return onecycle.ablate(
        "digits",
        settings=QUICK,
        seeds=2,
        ingredients=["crop", "cutout"],
        precision="fp32",
        threads=1,
        quiet=True,
        out="study",
        **options,
    )


def test_ingredients_are_judged_seed_by_seed_and_finished_runs_are_kept(tmp_path):
    found = ablate().summary
    accuracies = {}
    for variant in ("whole", "without-crop", "without-cutout"):
        group = tmp_path / "study" / variant
        assert json.loads((group / record.SEEDS).read_text())["seeds"] == [0, 1]
        runs = [onecycle.Run(group / f"seed-{seed}") for seed in (0, 1)]
        accuracies[variant] = [run.summary["val_accuracy"] for run in runs]
        assert all("val_accuracy" in run.metrics[0] for run in runs)
    assert found["whole"]["mean"] == pytest.approx(sum(accuracies["whole"]) / 2)
    crop, cutout = found["ingredients"]
    assert (crop["ingredient"], crop["settings"]) == ("crop", ["augment.pad=0"])
    for row, variant in ((crop, "without-crop"), (cutout, "without-cutout")):
        gaps = [w - v for w, v in zip(accuracies["whole"], accuracies[variant], strict=True)]
        assert row["worth"]["mean"] == pytest.approx(sum(gaps) / 2)
        assert row["worth"]["low"] <= row["worth"]["mean"] <= row["worth"]["high"]
    assert (tmp_path / "study" / "ablation.png").read_bytes().startswith(b"\x89PNG")

    # Again after a kill: what is finished stays, what was begun goes on or is made anew.
    kept = tmp_path / "study" / "whole" / "seed-0" / record.SUMMARY
    lost = tmp_path / "study" / "without-cutout" / "seed-1"
    before = kept.stat().st_mtime_ns
    (lost / record.SUMMARY).unlink()
    (tmp_path / "study" / record.ABLATION).unlink()
    (tmp_path / "study" / "without-cutout" / record.SUMMARY).unlink()
    assert ablate().summary == found, "the same in all but time"
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(RecipeError, match="study holds another ablation"):
        ablate(seed=5)


def test_data_with_a_validation_part_is_judged_on_it(coloured, tmp_path):
    folder = shutil.copytree(coloured(), tmp_path / "pets")
    shutil.copytree(folder / "test", folder / "val")
    options = {"ingredients": ["crop"], "settings": QUICK, "quiet": True, "threads": 1}
    found = onecycle.ablate("digits", folder, seeds=1, out="own", **options)
    run = onecycle.Run(tmp_path / "own" / "whole" / "seed-0")
    assert found.summary["whole"]["mean"] == run.summary["val_accuracy"]
    with pytest.raises(RecipeError, match=r"--val-fraction 0\.1: the data has a validation part"):
        onecycle.ablate("digits", folder, val_fraction=0.1, out="held", **options)
    assert not (tmp_path / "held").exists()


def test_what_cannot_be_left_out_is_said(make_recipe):
    plain = make_recipe().model_copy(update={"ingredients": {}})
    with pytest.raises(RecipeError, match="names no ingredients"):
        onecycle.ablate(plain, quiet=True)
    with pytest.raises(RecipeError, match=r"no ingredient 'cut'.*did you mean 'cutout'"):
        onecycle.ablate("digits", ingredients=["cut"], quiet=True)
    with pytest.raises(RecipeError, match="already without its 'crop'"):
        onecycle.ablate("digits", settings=["augment.pad=0"], quiet=True)
    with pytest.raises(RecipeError, match="held-out training images"):
        onecycle.ablate("digits", val_fraction=0, quiet=True)


def test_the_picture_puts_the_most_worthy_on_top():
    def spread(mean):
        return {"n": 3, "mean": mean, "std": 0.01, "low": mean - 0.01, "high": mean + 0.01}

    rows = [
        {"ingredient": name, "settings": [], "without": spread(0.5), "worth": spread(worth)}
        for name, worth in (("a$", 0.01), ("b", 0.03), ("c", -0.01))
    ]
    summary = {"recipe": "r", "data": "d", "epochs": 3.0, "whole": spread(0.9)}
    axes = ablation.worth(summary | {"ingredients": rows}).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["c", r"a\$", "b"]
    assert [round(bar.get_width()) for bar in axes.patches] == [-1, 1, 3]
    assert [list(line.get_xdata()) for line in axes.lines[:1]] == [[-2, 0]]
