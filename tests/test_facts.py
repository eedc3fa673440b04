"""`onecycle.data` and `onecycle data` tell what is in a data set, briefly or whole."""

import json
import re
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

import onecycle
from onecycle import progress
from onecycle.datasets import duplicates, facts
from onecycle.datasets.duplicates import Duplicates, Pair
from onecycle.errors import RecipeError

NONE = Duplicates((), ())


@pytest.fixture
def folder(tmp_path):
    """Three classes, the first with 40 copies of an image that is in the test part too."""
    draw = np.random.default_rng(0)

    def put(name, image):
        path = tmp_path / "my pictures!" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    def noise():
        small = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        return np.asarray(small.resize((32, 32), Image.BICUBIC))

    for i in range(6):
        for name in ("cat", "dog", "$bird$"):
            put(f"train/{name}/{i}.png", noise())
            put(f"test/{name}/{i}.png", noise())
    same = noise()
    for i in range(40):
        put(f"train/cat/copy{i:02d}.png", same)
    put("test/dog/copy.png", same)
    put("test/cat/mirrored.png", same[:, ::-1])
    return tmp_path / "my pictures!"


def test_counts_are_of_each_class_in_each_part(make_data):
    data = make_data(classes=3, train=100, test=30)
    data = replace(data, train=data.train.subset(np.flatnonzero(np.arange(100) % 6 != 2)))
    expected = [int((data.train.labels == label).sum()) for label in range(3)]
    assert [each["train"] for each in facts.counts(data).values()] == expected
    assert [each["test"] for each in facts.counts(data).values()] == [10, 10, 10]
    assert facts.imbalance(data) == max(expected) / min(expected) > 1.9


def test_images_without_names_are_called_by_their_place(tiny):
    assert facts.image(tiny, 95) == {"part": "train", "class": "class2", "name": "train/00095"}
    assert facts.image(tiny, 96) == {"part": "test", "class": "class0", "name": "test/00000"}


def test_the_facts_of_a_folder(folder):
    found = onecycle.data(folder, quiet=True)
    told = found.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["name"] == "my pictures!" and told["image_size"] == 32
    assert told["shape"] == {"train": [58, 32, 32, 3], "test": [20, 32, 32, 3]}
    assert told["classes"]["cat"] == {"train": 46, "test": 7}
    assert told["imbalance"] == 46 / 6
    pixels = found.dataset.train.images() / 255
    np.testing.assert_allclose(told["mean"], pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(told["std"], pixels.std((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.array(told["std_255"]) / 255, told["std"])
    twice = told["duplicates"]
    assert twice["exact"] == {"images": 41, "groups": 1, "across_parts": 1, "labels_differ": 1}
    assert len(twice["exact_groups"][0]) == 41
    (pair,) = twice["near_pairs"]
    assert pair["mirrored"] and pair["images"][1]["name"] == "test/cat/mirrored.png"
    assert twice["families"] == {"count": 1, "largest": 42}
    inside = twice["test_images_in_train"]
    assert inside == {"exact": 1, "near": 1, "fraction": 2 / 20}


def test_the_command_is_brief_and_draws(command, folder, tmp_path):
    code, out, err = command("data", folder)
    assert code == 0 and err == ""
    assert re.search(r"^  cat +46 train +7 test$", out, re.MULTILINE)
    assert "largest over smallest 7.67" in out
    (group,) = (line for line in out.splitlines() if " = " in line)
    assert "train/cat/copy00.png = test/dog/copy.png = " in group and "and 37 more" in group
    assert "1 pair of 2 images, 1 across train and test, labels differ in 0" in out
    assert "2 of 20 test images (10.00%) have a duplicate in the training part" in out
    names = ["augmented.png", "near_duplicates.png", "samples.png"]
    assert sorted(path.name for path in (tmp_path / "data-my-pictures").iterdir()) == names


def test_a_picture_of_duplicates_that_are_gone_is_removed(folder, tmp_path):
    found = onecycle.data(folder, quiet=True)
    assert tmp_path / "shown/near_duplicates.png" in found.save_pictures(tmp_path / "shown")
    paths = replace(found, duplicates=NONE).save_pictures(tmp_path / "shown")
    assert sorted(paths) == sorted((tmp_path / "shown").iterdir())


def test_json_is_everything_in_one_object(command, folder, tmp_path):
    code, out, err = command("data", folder, "--json", "--out", tmp_path / "here", "-q")
    assert code == 0 and err == ""
    told = json.loads(out)
    assert len(told["duplicates"]["exact_groups"][0]) == 41
    assert told["pictures"][0] == str(tmp_path / "here" / "samples.png")


def test_python_and_command_line_give_the_same(command, folder):
    _, out, _ = command("data", folder, "--json")
    told = json.loads(out)
    del told["pictures"]
    assert told == onecycle.data(str(folder)).to_dict()


@pytest.fixture
def pretend(monkeypatch):
    """Lets `onecycle data` find a data set and duplicates that are made here."""

    def use(dataset, found=NONE):
        # By its name, because `onecycle.api.data` is the function.
        monkeypatch.setattr(
            import_module("onecycle.api.data"), "load_data", lambda *_, **__: dataset
        )
        monkeypatch.setattr(duplicates, "find", lambda *_: found)

    return use


def test_unusable_files_are_said_loudly_and_are_no_failure(command, tiny, pretend):
    bad = tuple(f"train/cat/{i}.png (truncated)" for i in range(30))
    pretend(replace(tiny, skipped=bad))
    code, out, _ = command("data", "x")
    assert code == 0
    lines = out.splitlines()
    start = lines.index("NOT USABLE      30 files, left out:")
    assert lines[start + 1 : start + 22] == [
        *(f"  {each}" for each in bad[:20]),
        "  and 10 more (--json lists all)",
    ]
    assert json.loads(command("data", "x", "--json")[1])["skipped"] == list(bad)


def test_many_classes_and_duplicates_do_not_flood_the_terminal(command, make_data, pretend):
    data = make_data(classes=100, train=3000, test=200)
    groups = tuple(tuple(range(start, start + 100)) for start in range(0, 3000, 100))
    pairs = tuple(Pair(start, start + 100, 0.9, False) for start in range(0, 2900, 100))
    pretend(data, Duplicates(groups, pairs))
    out = command("data", "x")[1]
    assert len(out.splitlines()) < 40 and max(map(len, out.splitlines())) < 400
    assert re.search(r"smallest +30 train +2 test", out)
    told = json.loads(command("data", "x", "--json")[1])
    assert len(told["classes"]) == 100 and len(told["duplicates"]["exact_groups"]) == 30


def test_names_say_the_part_and_the_class_once(command, tiny, pretend):
    train = replace(tiny.train, names=tuple(f"photo{i}" for i in range(96)))
    pretend(replace(tiny, train=train), Duplicates(((1, 96),), ()))
    out = command("data", "x")[1]
    assert "  train photo1 (class1) = test/00000 (class0)" in out


@pytest.mark.parametrize(("name", "folder"), [("../a b", "data-a-b"), ("!?", "data-set")])
def test_the_default_folder_has_a_safe_name(command, tiny, pretend, tmp_path, name, folder):
    pretend(replace(tiny, name=name))
    command("data", "x")
    assert (tmp_path / folder / "samples.png").is_file()


def test_a_wrong_recipe_is_refused_before_anything_is_compared(tiny, pretend, make_recipe):
    with pytest.raises(RecipeError, match="unknown recipe 'davidnot'"):
        onecycle.data("/nowhere", recipe="davidnot")
    pretend(tiny, found=None)
    with pytest.raises(RecipeError, match="too large for images of 16 pixels"):
        onecycle.data("x", recipe=make_recipe("augment.cutout=16"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["digits", "--seed", "-1"], 2, "--seed -1"),
        (["nowhere"], 3, "nowhere: no such file"),
        (["digits", "--out", "file/below"], 6, "cannot make the folder"),
        ([], 2, "SPEC"),
    ],
)
def test_wrong_use_ends_in_one_line(command, tmp_path, monkeypatch, arguments, code, said):
    (tmp_path / "file").touch()
    monkeypatch.setattr(duplicates, "find", None)
    ended, out, err = command("data", *arguments)
    assert (ended, out) == (code, "") and said in err and len(err.splitlines()) == 1


def test_pictures_are_looked_at_in_the_size_that_training_would_take(folder):
    found = onecycle.data(folder, image_size=16, quiet=True)
    assert found.dataset.image_size == 16


def test_the_recipe_is_the_one_made_for_the_data(tiny, pretend):
    pretend(tiny)
    assert onecycle.data("digits").recipe.name == "digits"
    assert onecycle.data("x").recipe.name == "folder"


def test_a_long_comparison_says_how_far_it_is(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show = progress.Show()
    for done in range(1, 101):
        show.compared(done, 100)
        now[0] += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "comparing all pairs of images: 9%, 46 s left"
    assert len(lines) == 12
    progress.Show(quiet=True).compared(1, 100)
    assert capsys.readouterr().err == ""
