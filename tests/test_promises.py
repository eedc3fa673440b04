"""The page of promises names tests that are there, and figures as they were kept."""

import json
import re
from pathlib import Path

import pytest
from promises import FIGURES, PAGE, PROMISES, page

TESTS = sorted({test for _, _, *tests in PROMISES for test in tests})


@pytest.mark.parametrize("test", TESTS)
def test_a_promise_is_held_by_a_test_that_exists(test):
    file, _, name = test.partition("::")
    text = (Path(__file__).parent / file).read_text()
    assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE)


def test_the_page_is_the_one_that_the_figures_give():
    assert PAGE.read_text() == page(json.loads(FIGURES.read_text()))
