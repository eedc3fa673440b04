"""The script of the pages' pictures still draws them, from any data."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onecycle.reporting import plots

SCRIPT = Path(__file__).parent.parent / "scripts" / "pictures.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("pictures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_drawn_and_is_led_to(script, make_data, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    monkeypatch.setattr(script, "load", lambda spec: make_data(32, classes=10, train=600, test=10))
    monkeypatch.setattr(script.sys, "argv", ["pictures.py", "DATA"])
    script.main()
    drawn = {path.name for path in tmp_path.iterdir()}
    there = {path.name for path in (SCRIPT.parent.parent / "docs" / "pictures").iterdir()}
    assert len(drawn) == 5 and drawn <= there
    sizes = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            sizes[path.name] = image.size
            assert image.mode == "P" and len(image.getcolors()) > 3
    assert min(min(size) for size in sizes.values()) > 200


def test_a_picture_in_fewer_colours_is_the_same_to_the_eye(script):
    png = plots.png(script.receptive_field())
    with Image.open(io.BytesIO(png)) as before, Image.open(io.BytesIO(script.small(png))) as after:
        apart = np.asarray(before.convert("RGB"), int) - np.asarray(after.convert("RGB"), int)
    # Only some pixels along the edges of lines and letters are of other colours.
    assert np.abs(apart).mean() < 0.5 and (np.abs(apart) > 32).mean() < 1e-3


def test_the_lines_end_at_the_fields_of_the_table(script):
    axes = script.receptive_field().axes[0]
    ends = {line.get_label(): int(line.get_ydata()[-1]) for line in axes.lines[:3]}
    assert ends == {"davidnet": 88, "resnet18": 133, "dilated": 84}
