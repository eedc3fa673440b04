"""Pictures in folders of parts or of classes: what belongs where, what is drawn and told."""

import csv
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from layout_files import flat, table, write
from picture_files import encoded, noise
from PIL import Image
from trees import refused

import onecycle
from onecycle.datasets.load import load
from onecycle.errors import RecipeError


def by_pixels(split, classes):
    """The class of each image, by its bytes."""
    return {
        image.tobytes(): classes[label]
        for image, label in zip(split.images(), split.labels, strict=True)
    }


# The digits in each layout


def test_the_digits_as_files_are_the_same_images_in_every_layout(tmp_path):
    digits = load("digits")
    split, once, rows = tmp_path / "split", tmp_path / "flat", []
    for part, images in (("train", digits.train), ("test", digits.test)):
        for name, label, image in zip(images.names, images.labels, images.images(), strict=True):
            stem = f"{label}/{Path(name).name}.png"
            for path in (split / part / stem, once / stem):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
            rows.append([stem, label, part])
    listed = table(once / "digits.csv", rows)
    expected = {p: by_pixels(getattr(digits, p), digits.classes) for p in ("train", "test")}
    for path in (split, listed):
        data = load(path)
        assert data.classes == digits.classes and not data.notes and not data.drawn
        for part in ("train", "test"):
            assert by_pixels(getattr(data, part), data.classes) == expected[part]
    assert load(split).digest == load(listed).digest
    drawn = load(once)
    together = by_pixels(drawn.train, drawn.classes) | by_pixels(drawn.test, drawn.classes)
    assert together == expected["train"] | expected["test"]
    assert drawn.drawn and len(drawn.train) + len(drawn.test) == 1797


# Folders of parts


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_part_is_one_whatever_it_is_called(tmp_path, name):
    names = [f"{part}/{file}" for part in ("train", name, "test") for file in flat(2)]
    data = load(write(tmp_path / "pets", names))
    assert [n.split("/")[0] for n in data.val.names] == [name] * 6
    assert (len(data.train), len(data.test), data.notes) == (6, 6, ())
    less = load(write(tmp_path / "less", [n for n in names if n.split("/")[0] != name]))
    assert less.val is None and less.digest != data.digest
    with pytest.raises(RecipeError, match=r"--val-fraction 0\.5: the data has a validation part"):
        data.hold_out(0.5, seed=0)


def test_other_images_in_the_validation_part_are_another_data_set(tmp_path):
    parts = ("train", "val", "test")
    names = [f"{part}/{file}" for part in parts for file in flat(2)]
    one = load(write(tmp_path / "one", names)).digest
    (write(tmp_path / "two", names) / "val/cat/000.png").write_bytes(encoded(noise(seed=99)))
    assert load(tmp_path / "two").digest != one


def test_a_validation_part_alone_is_the_test_part(tmp_path):
    names = [f"{part}/{file}" for part in ("train", "val") for file in flat(2)]
    data = load(write(tmp_path / "pets", names))
    assert data.val is None and len(data.test) == 6 and not data.drawn
    assert data.notes == ("no test part: the val part is the test part",)


@pytest.mark.parametrize(("train", "test"), [("Train", "TEST"), ("training", "testing")])
def test_parts_are_known_however_they_are_written(tmp_path, train, test):
    names = [f"photos/{train}/{file}" for file in flat(4)] + [f"photos/{test}/{f}" for f in flat(2)]
    data = load(write(tmp_path / "pets", names))
    assert (len(data.train), len(data.test), data.drawn) == (12, 6, False)


def test_pictures_outside_of_the_parts_are_counted(tmp_path):
    names = [f"{part}/{file}" for part in ("train", "test") for file in flat(2)]
    data = load(write(tmp_path / "pets", [*names, "logo.png", "docs/a/b.png"]))
    (note,) = data.notes
    assert note.startswith("pictures left out, because they lie in no class of a part: ")
    assert note.endswith(" and 1 more") and len(data.train) == 6


def test_what_is_left_out_is_told_as_it_is_now(tmp_path):
    names = [f"{part}/{file}" for part in ("train", "test") for file in flat(2)]
    path = write(tmp_path / "pets", names)
    assert load(path).notes == ()
    write(path, ["tset/cat/0.png"])
    assert "tset/cat/0.png" in load(path).notes[0]
    shutil.rmtree(path / "tset")
    assert load(path).notes == ()


def test_pictures_deeper_than_a_class_are_refused(tmp_path):
    names = [f"{part}/{file}" for part in ("train", "test") for file in flat(2)]
    path = write(tmp_path / "pets", [*names, "train/cat/indoor/1.png"])
    assert "'train/cat/indoor/1.png' lies deeper than the pictures of a class" in refused(path)
    names = [f"{part}/{kind}/indoor/{part}.png" for part in ("train", "test") for kind in "ab"]
    said = refused(write(tmp_path / "all", names))
    assert "/a/indoor/" in said and "lies deeper than the pictures of a class" in said


def test_two_pictures_of_one_name_are_both_named(tmp_path):
    said = refused(write(tmp_path / "pets", ["a/train/cat/0.png", "b/train/cat/0.png"]))
    assert "'a/train/cat/0.png' and 'b/train/cat/0.png' both count as" in said


def test_a_folder_name_in_two_places_is_no_class(tmp_path):
    said = refused(
        write(tmp_path / "pets", [f"{kind}/indoor/{kind}.png" for kind in ("cat", "dog")])
    )
    assert "can't both be the class 'indoor'" in said and "'cat/indoor'" in said


@pytest.mark.parametrize("container", ["pets", "pets.zip"])
def test_a_training_part_alone_gets_a_test_part_drawn(tmp_path, container):
    names = [f"train/{file}" for file in flat(10)]
    path = write(tmp_path / "pets", names)
    if container.endswith("zip"):
        with zipfile.ZipFile(tmp_path / container, "w") as archive:
            for name in names:
                archive.write(path / name, f"photos/{name}")
    data = load(tmp_path / container)
    assert data.drawn and (len(data.train), len(data.test)) == (24, 6)
    assert set(data.train.names) | set(data.test.names) == set(names)


# Folders of classes


def test_a_drawn_test_part_is_a_fifth_of_each_class_and_always_the_same(tmp_path):
    counts = {"ant": 1, "bee": 2, "cat": 3, "dog": 17, "emu": 100}
    names = [f"{kind}/{i:03}.png" for kind, count in counts.items() for i in range(count)]
    data = load(write(tmp_path / "pets", names))
    tested = Counter(name.split("/")[0] for name in data.test.names)
    assert tested == {kind: round(n / 5) for kind, n in counts.items() if round(n / 5)}
    assert data.untested == ("ant", "bee")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in reversed(names):
            archive.write(tmp_path / "pets" / name, f"photos/pets/{name}")
    packed = load(tmp_path / "pets.zip")
    assert packed.digest == data.digest and packed.test.names == data.test.names
    first = sorted(int(name[4:7]) for name in data.test.names if name.startswith("emu"))
    assert first != list(range(20)) and max(first) > 50  # not the first ones


def test_a_picture_that_is_added_moves_at_most_one_other(tmp_path):
    before = set(load(write(tmp_path / "pets", flat(50))).test.names)
    write(tmp_path / "pets", ["cat/new.png"])
    after = set(load(tmp_path / "pets").test.names)
    assert len(before - after) <= 1 and len(after - before) <= 1


@pytest.mark.parametrize(
    ("extra", "said"),
    [("cat/old/1.png", "'cat/old/1.png' lies deeper"), ("1.png", "'1.png' lies less deep")],
)
def test_a_picture_whose_class_can_not_be_told_is_named(tmp_path, extra, said):
    assert said in refused(write(tmp_path / "pets", [*flat(3), extra]))


def test_pictures_without_any_class_are_refused(tmp_path):
    assert "no images found in a class's folder" in refused(write(tmp_path / "pets", ["1.png"]))
    (tmp_path / "empty").mkdir()
    assert "no images found" in refused(tmp_path / "empty")


def test_classes_that_are_all_links_are_named(tmp_path):
    write(tmp_path / "away", flat(2))
    (tmp_path / "pets").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).symlink_to(tmp_path / "away" / name)
    assert "is a link to a folder: put the folder there" in refused(tmp_path / "pets")


def test_a_linked_class_is_named(tmp_path):
    path = write(tmp_path / "pets", flat(3))
    (path / "fox").symlink_to(path / "cat")
    assert "fox is a link to a folder" in refused(path)


def test_hidden_pictures_are_left_out(tmp_path):
    hidden = [".git/a.png", "cat/.b.png", "__MACOSX/cat/c.png", "dog/.thumbs/d.png"]
    data = load(write(tmp_path / "pets", [*flat(5), *hidden]))
    assert len(data.train) + len(data.test) == 15


# What is told and recorded


def test_a_run_tells_and_records_what_was_drawn_and_is_judged_on_it_again(coloured, command):
    folder = coloured(test=1)
    for path in sorted(folder.glob("test/*/*")):
        path.unlink()
    Image.new("RGB", (40, 50)).save(next(folder.glob("train/*/00.png")))
    settings = [*("--set", "model.width=4"), *("--set", "schedule.peak_epoch=1")]
    options = ["--epochs", 2, "--out", "run", "--precision", "fp32", *settings]
    code, _, said = command("train", "--recipe", "davidnet", "--data", folder, *options)
    assert code == 0 and "note: no test part: 20% of each class were drawn as it (seed 0;" in said
    assert "note: images of 32 pixels, made of shorter sides of 16 to 40 pixels, the med" in said
    rows = list(csv.DictReader(Path("run/split.csv").read_text().splitlines()))
    assert Counter(row["split"] for row in rows) == {"train": 72, "test": 18}
    made = json.loads(Path("run/environment.json").read_text())["data"]
    assert made["drawn"] is True and len(made["notes"]) == 2
    run = onecycle.Run(Path("run"))
    assert len(run.evaluate().figures) > 0 and run.probabilities.shape[0] == 18
    listed = {row["path"] for row in rows if row["split"] == "test"}
    assert listed == set(load(folder).test.names)
    code, said, _ = command("data", folder, "--out", "seen")
    assert code == 0 and "72 train, 18 test" in said and "note            no test part" in said


def test_a_part_of_validation_is_judged_after_each_epoch(coloured):
    folder = coloured()
    (folder / "test").rename(folder / "valid")
    for path in sorted(folder.glob("valid/*")):
        target = folder / "test" / path.name
        target.mkdir(parents=True)
        for file in sorted(path.iterdir())[:5]:
            file.rename(target / file.name)
    settings = {"model.width": 4, "schedule.peak_epoch": 1, "batch_size": 24}
    run = onecycle.train("davidnet", folder, epochs=2, settings=settings, out="run", quiet=True)
    assert "val_accuracy" in run.summary and "val_accuracy" in run.metrics[0]
    assert run.probabilities.shape[0] == 15
    run.evaluate()
