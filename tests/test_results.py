"""What is published agrees with the README."""

import importlib.util
from pathlib import Path

import pytest

from onecycle import files
from onecycle.recipe import book
from onecycle.reporting import tables

ROOT = Path(__file__).parent.parent
REPORTED = files.read_json(ROOT / "docs" / "reported.json")
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_tables_are_those_that_the_results_give(script):
    text = script.README.read_text()
    assert script.filled(text) == text, "run: python scripts/readme.py"


def test_the_table_of_own_pictures_is_what_the_results_give(script):
    text = script.OWN.read_text()
    table = script.own()
    assert table in text and tables.fill(text, "own", table) == text
    assert len(table.splitlines()) == 2 + 3


def test_who_is_compared_by_time_is_ours_and_a_peer_on_the_same_data(script):
    for found in script.contenders().values():
        assert len({each["data"] for each in found}) == 1
        ours = [each for each in found if "recipe_digest" in each]
        assert 0 < len(ours) < len(found)
        for each in ours:
            recipe = book.find(each["name"])
            assert (recipe.digest(), recipe.epochs) == (each["recipe_digest"], each["epochs"])


def test_the_picture_has_a_point_for_each_published_run_in_its_machines_panel(script):
    found = script.published()
    elsewhere = found[0] | {"hardware": "another", "seconds": 1.0}
    drawn = [
        (axes.get_title(), line.get_label(), *point)
        for axes in script.recipes([*found, elsewhere]).axes
        for line in axes.lines
        for point in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    told = [
        (tables.machine(run), run["recipe"], run["seconds"], 100 * run["test_accuracy"])
        for run in [*found, elsewhere]
    ]
    assert sorted(drawn) == sorted(told) and len({panel for panel, *_ in drawn}) >= 2


def test_times_are_shares_of_the_slowest_ones(script):
    def contender(name, *runs):
        made = [{"seconds": s, "test_accuracy": a} for s, a in runs]
        return {"name": name, "epochs": 2, "runs": made}

    both = [contender("slow", (90, 0.5), (110, 0.7)), contender("ours", (25, 0.6))]
    both[0]["runs"].append({"test_accuracy": 0.6})
    machines = {"a CPU": both, "another": [contender("ours", (7, 0.6))]}
    first, table, second, _ = script.to_accuracy(machines).split("\n\n")
    slow, ours = table.splitlines()[2:]
    assert (first, second) == ("a CPU:", "another:")
    assert slow.endswith("| 2 | 100 | 1.00 |") and slow.startswith("| slow | 2 | 3 | 60.00 ± ")
    assert ours == "| ours | 2 | 1 | 60.00 | 1 | 25 | 0.25 |"
    panels = script.beside_peers(machines).axes
    drawn = [[list(line.get_xdata()) for line in axes.lines] for axes in panels]
    assert drawn == [[[90, 110], [25]], [[7]]]


def test_a_table_that_was_edited_would_be_noticed():
    text = "a\n<!-- results: begin -->\n| 99 % |\n<!-- results: end -->\nb"
    table = tables.markdown([files.read_json(path) for path in RESULTS], REPORTED)
    filled = tables.fill(text, "results", table)
    assert filled != text and filled.startswith("a\n") and filled.endswith("\nb")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_names_a_recipe_that_is_still_the_same(path):
    result = files.read_json(path)
    assert book.find(result["recipe"]).digest() == result["recipe_digest"]


def test_every_reference_has_a_row_with_what_its_author_reports():
    assert set(REPORTED) <= set(book.names()) and len(REPORTED) == 5
    table = tables.markdown([], REPORTED)
    assert "| davidnet-reflect | 93.08 / 98.12 | - |" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1
