"""What users are told: the nearest word, one line, and the line that installs what is missing."""

import pytest

from onecycle.errors import MissingExtraError, need


def test_a_library_that_is_there_is_imported():
    assert need("json", "extra", "reading").loads("[1]") == [1]


def test_a_missing_library_is_named_with_the_line_that_installs_it():
    with pytest.raises(MissingExtraError, match=r"Grad-CAM .*no_such_thing.*onecycle\[explain\]"):
        need("no_such_thing", "explain", "Grad-CAM")
    assert MissingExtraError.exit_code == 5
