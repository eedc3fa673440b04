"""What is published agrees with the README."""

from pathlib import Path

import pytest

from onecycle import files
from onecycle.recipe import book
from onecycle.reporting import tables

ROOT = Path(__file__).parent.parent
REPORTED = files.read_json(ROOT / "docs" / "reported.json")
RESULTS = sorted((ROOT / "results").glob("*.json"))


def test_the_readme_table_is_the_one_that_the_results_give():
    text = (ROOT / "README.md").read_text()
    assert tables.fill(text, [files.read_json(path) for path in RESULTS], REPORTED) == text


def test_a_table_that_was_edited_would_be_noticed():
    text = f"a\n{tables.BEGIN}\n| 99 % |\n{tables.END}\nb"
    filled = tables.fill(text, [files.read_json(path) for path in RESULTS], REPORTED)
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
