"""Prediction: any pictures in, the run's own words out, and nothing lost on the way."""

import numpy as np
import pytest
import torch
from digit_pictures import copy_of, folder, tests
from PIL import Image
from torch.__config__ import parallel_info

import onecycle
from onecycle import files
from onecycle.datasets import decode
from onecycle.errors import DataError, DiskError, RecipeError
from onecycle.evaluation.temperature import fit_temperature, with_temperature
from onecycle.run import record
from onecycle.use import pictures, prediction

__all__ = ["folder", "tests"]
SIZE = 32


def test_a_prediction_is_the_stored_one_at_the_fitted_temperature(digits_run, tests):
    temperature = fit_temperature(*record.read_predictions(digits_run.path, "val"))
    expected = with_temperature(digits_run.probabilities, temperature)
    found = digits_run.predict(tests.images(), top=10, threads=1)
    shares = np.zeros_like(expected)
    for row, one in zip(shares, found, strict=True):
        for label, share in one.top:
            row[int(label)] = share
        assert one.calibrated and one.label == one.top[0][0] and one.file == ""
        assert list(one.top) == sorted(one.top, key=lambda each: -each[1])
    assert temperature != pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_no_training_data_is_needed_nor_a_validation_part(digits_run, tests, tmp_path, capsys):
    run = copy_of(digits_run, tmp_path / "run")
    (run / "environment.json").unlink()
    made = files.read_json(digits_run.path / "environment.json")
    made["data"]["source"] = "gone"
    files.write_json(run / "environment.json", made | {"val_fraction": 0.0})
    (run / "val_probabilities.npy").unlink()
    found = list(onecycle.predict(run, tests.images(0, 20), top=10, threads=1))
    assert "not calibrated" in capsys.readouterr().err
    for one, expected in zip(found, digits_run.probabilities, strict=False):
        assert not one.calibrated
        assert one.probability == pytest.approx(expected.max(), abs=1e-5)


def test_paths_pictures_and_arrays_are_predicted_alike(digits_run, folder, tests):
    image = tests.images(0, 1)[0]
    path = folder / "b.png"
    given = [path, str(path), Image.open(path), Image.fromarray(image), image, image[None]]
    found = digits_run.predict(given, threads=1)
    assert len({one.top for one in found}) == 1
    assert [one.file for one in found] == [str(path)] * 2 + [""] * 4
    for single in given:
        (one,) = digits_run.predict(single, threads=1)
        assert one.probability == pytest.approx(found[0].probability, abs=1e-6)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "PA", "HSV"]
)
def test_an_open_picture_is_treated_like_its_file(mode, tmp_path):
    grey = Image.linear_gradient("L").resize((70, 50))
    picture = Image.merge("RGB", [grey, grey.transpose(Image.Transpose.FLIP_TOP_BOTTOM), grey])
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 250)
    elif mode == "PA":
        picture = picture.convert("P").convert("PA")
    else:
        picture = picture.convert(mode)
    if mode == "P":
        picture.info["transparency"] = 3
    found = decode.square(picture, SIZE)
    assert found.shape == (SIZE, SIZE, 3) and found.dtype == np.uint8
    picture.load()  # it is still open
    # Pillow writes no file of the last two, and its version 12 can't read what it writes of YCbCr.
    form = {"CMYK": "tiff", "YCbCr": None, "PA": None, "HSV": None}.get(mode, "png")
    if form:
        picture.save(tmp_path / f"x.{form}")
        content = (tmp_path / f"x.{form}").read_bytes()
        np.testing.assert_array_equal(found, decode.look(content, SIZE).pixels)


@pytest.mark.parametrize("form", ["jpg", "png", "tiff", "webp"])
def test_an_open_picture_is_turned_upright_like_its_file(form, tmp_path):
    grey = Image.linear_gradient("L").resize((SIZE, SIZE))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.convert("RGB").save(tmp_path / f"x.{form}", exif=exif)
    path = tmp_path / f"x.{form}"
    with Image.open(path) as picture:
        found = decode.square(picture, SIZE)
    np.testing.assert_array_equal(found, decode.look(path.read_bytes(), SIZE).pixels)
    assert found[0, 0, 0] > found[0, -1, 0] + 200, "its top is at the right now"


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (np.zeros((8, 8, 3)), RecipeError, "float64"),
        (np.zeros((8, 8), np.uint8), RecipeError, r"\(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), RecipeError, r"\(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), DataError, "no pixels"),
        (3, RecipeError, "a int"),
        (Image.new("F", (8, 8)), DataError, "mode F"),
        (np.zeros((0, 8, 8, 3), np.uint8), DataError, "no images"),
    ],
    ids=["floats", "grey", "alpha", "empty", "a number", "mode F", "none"],
)
def test_what_is_no_picture_is_refused_in_a_line(digits_run, wrong, error, said):
    with pytest.raises(error, match=said):
        digits_run.predict([wrong], threads=1)


def test_a_folder_is_walked_in_order_and_suffixes_tell_images(folder):
    expected = ["a.png", "b.png", "d.bmp", "e.gif", "sub/c.PNG"]
    assert list(pictures.singles([folder])) == [folder / name for name in expected]


def test_a_link_to_a_folder_is_not_walked_into(folder):
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "sub" / "same.png").symlink_to(folder / "a.png")
    found = list(pictures.singles([folder / "sub"]))
    assert found == [folder / "sub" / name for name in ("c.PNG", "same.png")]


def test_a_name_that_cannot_be_looked_up_is_a_bad_file(folder):
    (folder / "sub" / "circle.png").symlink_to("circle.png")
    given = [folder / "sub", "x" * 999, "nul\0.png"]
    each = [pictures.decoded(one, SIZE) for one in pictures.singles(given)]
    found = {one.name[-10:]: one.pixels for one in each}
    assert "symbolic links" in found.pop("circle.png")
    assert "too long" in found.pop("x" * 10) and "null" in found.pop("nul\0.png")
    assert all(not isinstance(pixels, str) for pixels in found.values())


def test_only_some_pictures_are_held_at_a_time(digits_run, monkeypatch):
    monkeypatch.setattr(prediction, "TOGETHER", 2)
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield np.zeros((4, 4, 3), np.uint8)

    found = onecycle.predict(digits_run.path, endless(), threads=2, quiet=True)
    for _ in range(50):
        next(found)
    found.close()
    assert asked <= 50 + 2 * (2 * 2 + 2)


def test_the_answers_do_not_depend_on_the_number_of_threads(digits_run, tests):
    before = torch.get_num_threads()
    one, two = (digits_run.predict(tests.images()[:99], threads=threads) for threads in (1, 2))
    assert one == two and len(one) == 99
    torch.set_num_threads(before)


def test_a_prediction_leaves_the_threads_of_torch_as_they_were_asked_for(digits_run, tests):
    def told():
        return [line for line in parallel_info().splitlines() if "get_max_threads" in line]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    expected = told()
    digits_run.predict(tests.images()[:99], threads=2)
    assert told() == expected and any("2" in line for line in expected)
    torch.set_num_threads(before)


def test_damaged_weights_are_named(digits_run, tmp_path):
    run = copy_of(digits_run, tmp_path / "run")
    (run / "model.safetensors").unlink()
    with pytest.raises(DiskError, match=r"model.safetensors"):
        onecycle.predict(run, "x.png")
    (run / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DiskError, match=r"model\.safetensors: its checksum does not hold"):
        onecycle.predict(run, "x.png")


def test_what_an_iterator_puts_into_one_place_is_seen_each_time(digits_run, tests):
    """As the frames of an animation, which are all one object, or a camera's buffer."""
    images = tests.images(0, 20)
    expected = [one.probability for one in digits_run.predict(list(images), threads=1)]
    assert len(set(expected)) > 10
    buffer, picture = np.empty_like(images[0]), Image.new("RGB", images[0].shape[1::-1])

    def frames(given):
        for image in images:
            buffer[...] = image
            picture.paste(Image.fromarray(image))
            yield given

    for given in (buffer, picture):
        found = [one.probability for one in digits_run.predict(frames(given), threads=2)]
        assert found == pytest.approx(expected)
