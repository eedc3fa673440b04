"""A verb reads the same on the command line and in Python: names, defaults, and that it exists."""

import ast
import inspect
from pathlib import Path

import pytest

import onecycle
from onecycle.cli.app import app

VERBS = sorted(name for name in app if not name.startswith("-"))
# What only a command line needs, and where one name differs because Python has it already.
ONLY_TYPED = {"json_", "csv_", "plot", "copy", "resume", "force", "name", "label_errors"}
RENAMED = {"set_": "settings"}


def command(verb):
    return app[verb].default_command


def test_every_verb_is_one_that_is_planned():
    planned = "train find-lr evaluate gallery report predict export demo data recipes summary"
    assert set(VERBS) <= {*planned.split(), "results", "ablate", "bench", "doctor"}


def test_type_checkers_see_what_the_package_hands_on():
    tree = ast.parse(Path(onecycle.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"onecycle.{home}" for name, home in onecycle._HOME.items()}
    assert all(getattr(onecycle, name).__name__ == name for name in onecycle.__all__)


@pytest.mark.parametrize("verb", VERBS)
def test_options_have_the_same_names_and_defaults_in_python(verb):
    there = dict(inspect.signature(getattr(onecycle, verb.replace("-", "_"))).parameters)
    if verb == "gallery":  # of which --label-errors makes another function
        there = dict(inspect.signature(onecycle.label_errors).parameters) | there
    for name, option in inspect.signature(command(verb)).parameters.items():
        if name in ONLY_TYPED or (verb, name) == ("data", "out"):  # there figures are returned
            continue
        twin = there[RENAMED.get(name, name)]
        # An option that was not given is None; in Python an empty collection says the same.
        if option.default is None and twin.default in ((), None):
            continue
        assert option.default == twin.default, f"{verb} {name}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb):
    text = inspect.getdoc(command(verb)).partition("Parameters")[2]
    for name in inspect.signature(command(verb)).parameters:
        said = name.strip("_").replace("_", "-")
        assert name in text or said in text, f"{verb} --{said}"
