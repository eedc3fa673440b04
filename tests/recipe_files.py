"""What the tests of recipes share: a small one, changes of one value, and how one is refused."""

import json

import pytest

from onecycle.errors import RecipeError

RATES = {"lr_start": 1e-3, "lr_peak": 1e-2}
BASE = {
    "name": "base",
    "about": "",
    "epochs": 8.0,
    "batch_size": 64,
    "model": {"name": "davidnet", "width": 8},
    "augment": {},
    "schedule": {
        "lr_start": 1e-3,
        "lr_peak": 1e-2,
        "lr_final": 1e-4,
        "peak_epoch": 2.0,
        "shape": "linear",
    },
    "optimizers": {"sgd": {"momentum": 0.9}},
    "groups": [{"match": "*", "optimizer": "sgd"}],
}


def value_at(content, key):
    for part in key.split("."):
        content = content[int(part) if isinstance(content, list) else part]
    return content


def with_value(content, key, value):
    """A copy of `content` with `value` at the dotted `key`."""
    copy = json.loads(json.dumps(content))
    *path, last = key.split(".")
    here = value_at(copy, ".".join(path)) if path else copy
    here[int(last) if isinstance(here, list) else last] = value
    return copy


def assert_refused(call, *parts):
    """`call` raises RecipeError in one line that has all of `parts`."""
    with pytest.raises(RecipeError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
