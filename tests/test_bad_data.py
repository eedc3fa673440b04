"""Data that can't be used: one line for what is wrong."""

import io
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import Tree, encoded, huge_png, refused, write_folder, write_tar, write_zip

from onecycle.datasets import load as load_module
from onecycle.datasets.load import load
from onecycle.errors import DataError, DiskError


def test_paths_that_are_no_data(tmp_path: Path, tree: Tree) -> None:
    assert "no such file or folder" in refused(tmp_path / "nowhere")
    with pytest.raises(DataError, match="does not exist"):
        load_module.source(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    assert "neither a folder nor an archive" in refused(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.tar")
    assert "neither a folder nor an archive" in refused(tmp_path / "pipe.tar")
    half = {name: content for name, content in tree.items() if name.startswith("test")}
    text = "no train/<class>/ images found: expected train/<class>/<image>"
    assert text in refused(write_folder(tmp_path / "only-test", half))
    assert text in refused(write_tar(tmp_path / "only-test.tar", half))
    assert text in refused(write_zip(tmp_path / "only-test.zip", half))


def test_classes_that_do_not_match(tmp_path: Path, tree: Tree) -> None:
    extra = tree | {"test/owl/0.png": encoded(), "test/emu/0.png": encoded()}
    for path in (write_folder(tmp_path / "a", extra), write_tar(tmp_path / "a.tar", extra)):
        assert "in test/ or val/ without images in train/: emu, owl:" in refused(path)
    lonely = {name: content for name, content in tree.items() if "cat" in name}
    assert "only one class (cat)" in refused(write_folder(tmp_path / "c", lonely))


def test_bad_images_are_counted_and_named(tmp_path: Path, tree: Tree) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.int32)).save(deep, "tiff")
    postscript = io.BytesIO()  # Pillow would run Ghostscript for it
    Image.new("RGB", (16, 16)).save(postscript, "eps")
    tree |= {
        "train/cat/0.png": b"",
        "train/cat/1.png": b"no image at all",
        "train/cat/2.png": encoded()[:-300],
        "train/cat/3.png": deep.getvalue(),
        "train/dog/0.png": postscript.getvalue(),
        "train/dog/1.png": huge_png(8000),
        "train/dog/2.png": huge_png(30000),
    }
    text = refused(write_zip(tmp_path / "pets.zip", tree))
    assert "7 of 12 images can't be used" in text and text.count(".png (") == 7
    for reason in (
        "train/cat/0.png (empty file)",
        "train/cat/1.png (not an image of a known format)",
        "train/cat/2.png (image file is truncated",
        "train/cat/3.png (pixels of mode I have no known range)",
        "train/dog/0.png (not an image of a known format)",
    ):
        assert reason in text
    nothing_good = dict.fromkeys(tree, b"x")
    assert "12 of 12 images" in refused(write_folder(tmp_path / "pets", nothing_good))


@pytest.mark.parametrize("side", [8_000, 10_000, 30_000])
@pytest.mark.parametrize("filter_", ["error", "default"])
@pytest.mark.parametrize("place", ["test/cat/0.png", "train/dog/3.png"])
def test_bombs_do_not_fill_memory(
    tmp_path: Path, tree: Tree, side: int, filter_: str, place: str
) -> None:
    path = write_folder(tmp_path / "pets", tree | {place: huge_png(side)})
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(filter_)  # type: ignore[arg-type]
        text = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"1 of 12 images can't be used: {place} (" in text and "limit" in text
    assert peak < 16 * 2**20 and not shown


def test_the_same_name_twice(tmp_path: Path, tree: Tree) -> None:
    twice = tree | {"again/train/cat/0.png": encoded()}
    said = refused(write_tar(tmp_path / "pets.tar", twice))
    assert "'train/cat/0.png' and 'again/train/cat/0.png' both count as train/cat/0.png" in said


def test_names_that_break_lines(tmp_path: Path, tree: Tree) -> None:
    for name in ("train/cat/a\nb.png", "train/c\x1b[2Jat/0.png", "train/cat/\udcff.png"):
        path = write_tar(tmp_path / "pets.tar", tree | {name: encoded()})
        assert "unprintable characters" in refused(path)


def test_links_in_a_folder(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / "secret.png").write_bytes(encoded())
    path = write_folder(tmp_path / "pets", tree)
    (path / "train/cat/7.png").symlink_to("0.png")
    (path / "notes").symlink_to(tmp_path)
    assert len(load(path).train) == 9
    (path / "train/cat/8.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"train/cat/8.png is a link that leads outside"):
        load(path)
    (path / "train/cat/8.png").unlink()
    (path / "train/owl").symlink_to(path / "train/cat")
    with pytest.raises(DataError, match=r"train/owl is a link to a folder"):
        load(path)


def test_pipe_in_a_folder_is_no_image(tmp_path: Path, tree: Tree) -> None:
    path = write_folder(tmp_path / "pets", tree)
    os.mkfifo(path / "train/cat/7.png")
    assert len(load(path).train) == 8


def test_unreadable_image(tmp_path: Path, tree: Tree) -> None:
    path = write_folder(tmp_path / "pets", tree)
    (path / "train/cat/7.png").symlink_to("gone.png")
    assert "cannot read" in refused(path, DiskError)
