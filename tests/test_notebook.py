"""The tour goes through in a real kernel; what is committed of it is small and of no machine."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "notebooks" / "onecycle_tour.ipynb"
SECONDS = 300  # that the whole tour may take
PLACES = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|var|usr|opt|mnt|content)/")


@pytest.fixture(scope="module")
def tour():
    return nbformat.read(TOUR, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """All that can be read in a notebook: sources, and outputs that are no pictures."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            data = output.get("data", {})
            yield from (value for kind, value in data.items() if kind.startswith("text/"))


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def test_the_committed_tour_has_all_its_outputs_and_is_small(tour):
    nbformat.validate(tour)
    assert [cell.execution_count for cell in code(tour)] == list(range(1, len(code(tour)) + 1))
    assert all(cell.outputs for cell in code(tour)[1:])
    assert not [o for cell in code(tour) for o in cell.outputs if o.output_type == "error"]
    assert sum(len(pictures(cell)) for cell in code(tour)) >= 9
    assert TOUR.stat().st_size < 1_500_000


def test_the_tour_names_no_place_on_a_machine(tour):
    assert not [text for text in texts(tour) if PLACES.search(text)]
    assert PLACES.search("in /home/me/x") and not PLACES.search("https://x.org/home/x, s/var/x")


def test_one_line_chooses_the_data(tour):
    naming = [line for cell in code(tour) for line in cell.source.splitlines() if "digits" in line]
    assert naming == ['DATA = "digits"']


def test_each_step_is_one_line_that_is_explained(tour):
    for before, cell in zip(tour.cells, tour.cells[1:], strict=False):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 4
        else:
            assert before.cell_type == "code", "an explanation stands before its step"


def test_the_tour_goes_through(tour, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    again = nbformat.from_dict(json.loads(json.dumps(tour)))
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(again, timeout=SECONDS, kernel_name="python3", resources=place).execute()
    for then, now in zip(code(tour), code(again), strict=True):
        assert len(pictures(now)) == len(pictures(then)), now.source
    assert not [text for text in texts(again) if PLACES.search(text)]
    (page,) = tmp_path.glob("runs/*/report.html")
    assert "Model card" in page.read_text()
