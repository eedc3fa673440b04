"""Readers: the same images whatever they come in, and data sets by name."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import Tree, encoded, refused, same, write_folder, write_tar, write_zip

from onecycle.datasets import cache
from onecycle.datasets import load as load_module
from onecycle.datasets.load import load
from onecycle.errors import RecipeError

DIGITS_DIGEST = "f874cff156f5b47186525666ebcb862b707ba6a1e01b133a4f7d725ea1828bf8"


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)


def test_digits() -> None:
    data = load("digits")
    assert (data.name, data.classes, data.digest) == ("digits", tuple("0123456789"), DIGITS_DIGEST)
    assert (len(data.train), len(data.test), data.image_size) == (1437, 360, 32)
    assert data.train.images().dtype == np.uint8
    assert sorted(data.train.names + data.test.names) == [f"digits/{i:04d}" for i in range(1797)]
    shares = [np.bincount(split.labels) / len(split) for split in (data.train, data.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.003  # stratified
    image = data.train.images(0, 1)[0]
    assert image.min() == 0 and image.max() > 200 and (image == image[..., :1]).all()


def test_every_container_gives_the_same(tmp_path: Path, tree: Tree) -> None:
    reference = load(write_folder(tmp_path / "pets", tree))
    assert (reference.name, reference.source) == ("pets", str((tmp_path / "pets").resolve()))
    assert (len(reference.train), len(reference.test), reference.image_size) == (8, 4, 16)
    for split in (reference.train, reference.test):
        assert list(split.names) == sorted(split.names)
        for i, name in enumerate(split.names):
            assert reference.classes[split.labels[i]] == name.split("/")[1]
            expected = np.asarray(Image.open(io.BytesIO(tree[name])))
            assert np.array_equal(split.images(i, i + 1)[0], expected)
    shuffled = dict(sorted(tree.items(), key=lambda item: item[0][::-1]))
    clutter = {"README.md": b"x", "train/cat/._1.png": b"", "__MACOSX/train/cat/1.png": b""}
    below = {f"./photos/pets/{name}": content for name, content in shuffled.items()}
    for suffix in ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip"):
        write = write_zip if suffix == "zip" else write_tar
        for stem, entries in (("a", tree), ("b", shuffled), ("c", below | clutter)):
            data = load(write(tmp_path / f"{stem}.{suffix}", entries))
            assert same(data, reference) and data.name == stem
    assert same(load(write_folder(tmp_path / "d", below | clutter)), reference)


def test_digest_tells_content(tmp_path: Path, tree: Tree) -> None:
    def renamed(old: str, new: str) -> Tree:
        return {name.replace(old, new): content for name, content in tree.items()}

    swapped = tree | {"train/cat/0.png": tree["train/dog/0.png"]}
    less = {name: content for name, content in tree.items() if name != "test/cat/1.png"}
    trees = [tree, renamed("cat", "cow"), swapped, less, renamed("3.png", "9.png")]
    digests = [load(write_folder(tmp_path / str(i), t)).digest for i, t in enumerate(trees)]
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[0]  # the order is the same, and names don't count


def test_compression_by_content_not_suffix(tmp_path: Path, tree: Tree) -> None:
    plain = write_tar(tmp_path / "a.tar", tree).rename(tmp_path / "b.tar.gz")
    assert len(load(plain).train) == 8


def test_grey_palette_and_cmyk_become_rgb(tmp_path: Path, tree: Tree) -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(buffer, "jpeg")
    tree |= {
        "train/cat/0.png": encoded(mode="L"),
        "train/cat/1.png": encoded(mode="P"),
        "train/cat/2.JPG": buffer.getvalue(),
    }
    images = load(write_folder(tmp_path / "pets", tree)).train.images()
    assert images.shape == (9, 16, 16, 3)
    assert (images[0] == images[0][..., :1]).all()
    red = images[2].reshape(-1, 3).mean(axis=0)
    assert red[0] > 200 and red[1:].max() < 60


# Names of data sets


def test_unknown_word() -> None:
    assert "did you mean 'cifar10'?" in refused("cifar-10")
    assert "did you mean" not in refused("qqq")
    assert "give the path in full" in refused("~nobody-of-this-name/pets")


def test_home_is_expanded(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pets", tree)
    assert load("~/pets").source == str((tmp_path / "pets").resolve())


def test_cifar10_is_found(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def point_to(path: Path) -> None:
        monkeypatch.setenv("ONECYCLE_DATA", str(path))

    for text in ("nothing came", "does not exist", "store holds nothing named cifar10*"):
        message = refused("cifar10")
        assert text in message and "--data PATH" in message and "--data digits" in message
        point_to(tmp_path / "store")
        if text == "does not exist":
            (tmp_path / "store").mkdir()
    tree = {f"{s}/{i}/0.png": encoded(seed=i) for i in range(10) for s in ("train", "test")}
    in_cache = cache.cache_folder() / "downloads" / "cifar10.tar"
    in_cache.parent.mkdir(parents=True, exist_ok=True)
    write_tar(in_cache, tree)
    monkeypatch.delenv("ONECYCLE_DATA")
    assert load("cifar10").source == str(in_cache.resolve())
    point_to(tmp_path / "store")
    (tmp_path / "store" / "cifar10.txt").write_text("no data")
    archive = write_tar(tmp_path / "store" / "cifar10-small.tar.xz", tree)
    data = load("cifar10")
    assert (data.name, data.source) == ("cifar10-small", str(archive.resolve()))
    monkeypatch.setitem(load_module.KNOWN, data.digest, "CIFAR-10 (small)")
    assert load("cifar10").name == "CIFAR-10 (small)"
    for direct in (archive, write_folder(tmp_path / "pets", tree)):
        point_to(direct)
        assert load("cifar10").digest == data.digest


# The Dataset type


def test_mean_and_std_are_of_train_alone(tmp_path: Path, tree: Tree) -> None:
    white = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(white, "png")
    tree |= {"test/cat/0.png": white.getvalue()}
    data = load(write_folder(tmp_path / "pets", tree))
    pixels = data.train.images().reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=1e-12)
    held = data.hold_out(0.5, seed=0)
    kept = held.train.images().reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(held.mean, kept, rtol=1e-12)


def test_hold_out() -> None:
    data = load("digits")
    held = data.hold_out(0.1, seed=3)
    assert held.val is not None
    kept, out = set(held.train.names), set(held.val.names)
    assert not kept & out and kept | out == set(data.train.names)
    expected = np.rint(0.1 * np.bincount(data.train.labels))
    assert np.array_equal(np.bincount(held.val.labels), expected)
    position = {name: i for i, name in enumerate(data.train.names)}
    for split in (held.train, held.val):
        origin = [position[name] for name in split.names]
        assert np.array_equal(split.labels, data.train.labels[origin])
        assert np.array_equal(split.images(), data.train.images()[origin])
    again, other = data.hold_out(0.1, seed=3), data.hold_out(0.1, seed=4)
    assert again.val is not None and other.val is not None
    assert again.val.names == held.val.names != other.val.names
    assert same(data, load("digits")) and held.test is data.test
    for fraction in (0, 1, -0.5, 1.5, 0.0001, 0.9999):
        with pytest.raises(RecipeError, match="--val-fraction"):
            data.hold_out(fraction, seed=0)
