"""bench/scale.py: what it measures, in small, and what it makes of that."""

import json

import pytest
from bench_scripts import script

scale = script("scale")


def row(images, size, cpu, anonymous=100.0, operations=1.0):
    return {
        "images": images,
        "size": size,
        "cpu_seconds": cpu,
        "anonymous_mb": anonymous,
        "operations": operations,
    }


def test_costs_are_compared_with_the_smallest_data():
    rows = [
        row(1000, 32, 0.010),
        row(11_000, 32, 0.011, anonymous=101.0),
        row(1000, 64, 0.030, operations=4.0),
    ]
    found = scale.verdict(rows)
    assert found["cost_by_images"] == pytest.approx({"1000": 1.0, "11000": 1.1})
    assert found["anonymous_bytes_an_image"] == pytest.approx([100.0])
    assert found["cost_an_operation_by_size"] == pytest.approx({"32": 1.0, "64": 0.75})
    for axes in scale.figure(rows).axes:
        assert axes.get_xlabel() and axes.get_ylabel()


def test_a_single_size_can_be_drawn_whatever_its_cost():
    # Multiplied and divided by these operations its last bit moves: an axis without a height.
    cpu, operations = 0.00045403000298768694, 2_544_576.0
    rows = [row(images, 32, cpu, operations=operations) for images in (100, 200)]
    assert scale.plots.png(scale.figure(rows))


def test_operations_grow_with_the_area():
    recipe = scale.recipe_of(8)
    assert scale.operations(recipe, 64) == pytest.approx(4 * scale.operations(recipe, 32), rel=0.01)


def test_a_size_is_measured_in_a_process_of_its_own(tmp_path, capsys):
    options = ["--counts", "100", "200", "--sizes", "32", "--steps", "1", "--turns", "1"]
    scale.main([*options, "--width", "2", "--results", str(tmp_path / "results")])
    found = json.loads((tmp_path / "results/scale.json").read_text())
    assert [(row["images"], row["size"]) for row in found["rows"]] == [(100, 32), (200, 32)]
    assert all(row["cpu_seconds"] > 0 and row["anonymous_mb"] > 1 for row in found["rows"])
    assert (tmp_path / "results/scale.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out).keys() == scale.verdict(found["rows"]).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
