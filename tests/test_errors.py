"""What users are told: the nearest word, one line, and the line that installs what is missing."""

import pytest

from onecycle.errors import DataError, MissingExtraError, brief, need


def test_a_library_that_is_there_is_imported():
    assert need("json", "extra", "reading").loads("[1]") == [1]


def test_a_missing_library_is_named_with_the_line_that_installs_it():
    with pytest.raises(MissingExtraError, match=r"Grad-CAM .*no_such_thing.*onecycle\[explain\]"):
        need("no_such_thing", "explain", "Grad-CAM")
    assert MissingExtraError.exit_code == 5


def test_an_error_is_one_line_without_control_characters_whatever_it_quotes():
    error = DataError("a\nb\x1b[31m\u2028c é \udcff")
    assert str(error) == "a\\nb\\x1b[31m\\u2028c é \\udcff"


def test_what_is_long_is_quoted_briefly():
    assert brief("x" * 20, 20) == "x" * 20
    assert brief("a" * 500 + "b" * 500, 20) == "a" * 10 + "..." + "b" * 10
