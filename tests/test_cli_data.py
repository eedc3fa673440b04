"""Data on the command line: folder and archive train alike, and what is bad is named or skipped."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from quick_training import QUICK


def picture(seed=0, size=16):
    content = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Two classes of 16-pixel images: `pictures/train/cat/0.png` and so on."""
    for split, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = tmp_path / "pictures" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(i))
    return tmp_path / "pictures"


def test_an_image_folder_and_its_archive_give_the_same_run(command, folder):
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, "pictures")
    options = [*QUICK, "--set", "batch_size=8", "--json", "-q"]
    first, second = (
        json.loads(command("train", "--data", path, *options)[1]) for path in (folder, archive)
    )
    assert first["recipe"] == "folder+custom"
    for key in ("data_digest", "test_loss", "train_accuracy"):
        assert first[key] == second[key]


def only_cats(folder):
    for split in ("train", "test"):
        for path in (folder / split / "dog").iterdir():
            path.unlink()


def with_a_broken_image(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(picture()[:-40])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (only_cats, "only one class (cat)"),
        (with_a_broken_image, "train/cat/0.png"),
    ],
)
def test_data_that_cannot_be_used_is_named(command, folder, spoil, said):
    spoil(folder)
    code, out, err = command("train", "--data", folder, *QUICK)
    assert code == 3 and out == ""
    assert said in err.splitlines()[-1]
    assert not (folder.parent / "runs").exists()


def test_bad_images_are_skipped_and_pictures_resized_when_asked(command, folder):
    with_a_broken_image(folder)
    options = [*QUICK, "--set", "batch_size=8", "--skip-bad", "--image-size", "24"]
    code, _, err = command("train", "--data", folder, *options, "--val-fraction", "0.2")
    assert code == 0
    assert "note: 1 of 24 images can't be used and are left out" in err
    assert "test images of 24 pixels" in err and "no test images" not in err
