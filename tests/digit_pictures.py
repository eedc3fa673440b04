"""Digits that the tests predict, as arrays and as files, and a run's folder to be changed."""

import pytest
from PIL import Image

from onecycle.datasets import digits


@pytest.fixture(scope="module")
def tests():
    return digits.load().test


@pytest.fixture
def folder(tmp_path, tests):
    """`pics` with five digits, one of them in a folder below, and files to be passed over."""
    for i, name in enumerate(["b.png", "a.png", "sub/c.PNG", "d.bmp", "e.gif"]):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tests.images(i, i + 1)[0]).save(path)
    (tmp_path / "pics" / "notes.txt").write_text("not a picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "pics" / ".hidden.png")
    return tmp_path / "pics"


def copy_of(run, to):
    """The run's folder once more, as links, to be changed."""
    to.mkdir()
    for path in run.path.iterdir():
        (to / path.name).symlink_to(path)
    return to
