"""Images that can't be used: refused by name, or left out when that is asked for."""

import os

import cifar_files
import pytest
from picture_files import encoded, fuzz, kinds, noise
from PIL import Image
from trees import tree, write

from onecycle.datasets import cache
from onecycle.datasets.load import load
from onecycle.errors import DataError, DiskError


def huge(kind):
    """A file whose header promises far too many pixels."""
    small = noise((40, 24))
    if kind == "ppm":
        return b"P6 999999999 999999999 255\n"
    content = bytearray(encoded(small.convert("P") if kind == "gif" else small, kind))
    place, sides = {
        "jpeg": (content.find(b"\xff\xc0") + 5, b"\xfd\xe8" * 2),
        "gif": (6, b"\xff" * 4),
        "bmp": (18, b"\xff\xff\xff\x7f" * 2),
    }[kind]
    content[place : place + len(sides)] = sides
    return bytes(content)


BAD = {
    "empty.png": (b"", "empty file"),
    "text.png": (b"this is text", "not an image of a known format"),
    "header.png": (encoded(noise())[:33], "not an image of a known format"),
    "header.jpg": (encoded(noise(), "jpeg")[:200], "Truncated"),
    "cut.png": (encoded(noise())[:-300], "truncated"),
    "cut.jpg": (encoded(noise((60, 60)), "jpeg")[:-100], "truncated"),
    "cut.gif": (encoded(noise().quantize(), "gif")[:-100], "truncated"),
    "float.tif": (encoded(Image.new("F", (16, 16)), "tiff"), "mode F have no known range"),
    "phone.heic": (b"\0\0\0\x18ftypheic", "not an image of a known format"),
    **{f"huge.{kind}": (huge(kind), "limit") for kind in ("jpeg", "gif", "bmp", "ppm")},
}


def test_each_bad_image_is_refused_by_name_and_left_out_when_asked(tmp_path, looks):
    files = tree() | {f"train/cat/{name}": content for name, (content, _) in BAD.items()}
    path = write(tmp_path / "pets.zip", files)
    with pytest.raises(DataError) as strict:
        load(path)
    text = str(strict.value)
    assert strict.value.exit_code == 3 and len(text.splitlines()) == 1
    assert f"{len(BAD)} of {len(files)} images can't be used" in text
    assert all(name in text for name in BAD) and "onecycle data PATH" in text
    data = load(path, skip_bad=True)
    assert len(data.train) == 6 and data.image_size == 20
    assert [line.split(" (")[0] for line in data.skipped] == sorted(f"train/cat/{n}" for n in BAD)
    for line in data.skipped:
        name, reason = line.removeprefix("train/cat/").split(" (", 1)
        assert BAD[name][1] in reason and reason.endswith(")")
    assert not set(data.train.names) & {line.split(" (")[0] for line in data.skipped}
    looks.clear()
    assert load(path, skip_bad=True).skipped == data.skipped
    with pytest.raises(DataError) as again:
        load(path)
    assert str(again.value) == text and not looks  # the cache knows what was left out


def test_sound_data_are_read_once_whether_bad_ones_would_be_skipped_or_not(tmp_path, looks):
    path = write(tmp_path / "pets", tree())
    skipping, strict = load(path, skip_bad=True), load(path)
    assert skipping.digest == strict.digest and skipping.skipped == strict.skipped == ()
    assert len(looks) == 10


def test_a_class_or_a_part_of_which_nothing_is_left_is_named(tmp_path):
    for prefix, said in (
        ("train/dog", "no train images of class dog (3 of 10 can't be used)"),
        ("test", "no test images (4 of 10 can't be used)"),
        ("", "no train images of class cat, dog (10 of 10 can't be used)"),
    ):
        files = {name: b"x" if name.startswith(prefix) else c for name, c in tree().items()}
        path = write(tmp_path / f"pets{len(prefix)}", files)
        with pytest.raises(DataError) as caught:
            load(path, skip_bad=True)
        assert said in str(caught.value)
        assert not any((cache.cache_folder() / "images").iterdir())


def test_a_damaged_batch_of_cifar_is_never_skipped(tmp_path):
    files = cifar_files.cifar10()[0]
    files["data_batch_3"] = files["data_batch_3"][:-100]
    with pytest.raises(DataError, match="data_batch_3 can't be used"):
        load(cifar_files.write_folder(tmp_path / "ten", files), skip_bad=True)


def test_wrong_suffixes_and_odd_names_are_no_fault(tmp_path):
    jpeg = encoded(noise((20, 20)), "jpeg")
    extra = {
        "train/cat/a jpeg.png": jpeg,
        "train/cat/UPPER.JPEG": jpeg,
        "train/cat/'; rm -rf $(x) \"#?*.png": jpeg,
        "train/größe ☃/猫.png": jpeg,
        "test/größe ☃/%s {0}.png": jpeg,
    }
    data = load(write(tmp_path / "pets", tree() | extra))
    assert data.classes == ("cat", "dog", "größe ☃") and len(data.train) == 10
    assert set(extra) < set(data.train.names + data.test.names)


def test_folders_named_like_images_are_no_images(tmp_path):
    path = write(tmp_path / "pets", tree())
    (path / "train/cat/9.png").mkdir()
    (path / "8.png/a").mkdir(parents=True)
    (path / "8.png/a/0.png").write_bytes(b"x")
    assert len(load(path).train) == 6


@pytest.mark.parametrize("target", ["loop.png", "gone.png"])
def test_a_link_that_leads_nowhere_or_in_a_circle_is_named(tmp_path, target):
    path = write(tmp_path / "pets", tree())
    (path / "train/cat/loop.png").symlink_to(target)
    for skip_bad in (False, True):
        with pytest.raises(DiskError, match=r"cannot read .*train/cat/loop\.png: ") as caught:
            load(path, skip_bad=skip_bad)
        assert caught.value.exit_code == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = write(tmp_path / "pets", tree())
    (path / "train/cat/0.png").chmod(0)
    with pytest.raises(DiskError, match=r"cannot read .*train/cat/0\.png: Permission denied"):
        load(path)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_damaged_files_are_pixels_or_a_reason(kind):
    taken = fuzz(kinds()[kind], 300)
    assert 0 < taken < 300
