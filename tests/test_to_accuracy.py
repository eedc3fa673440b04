"""bench/to_accuracy.py: one training by the clock of a comparison."""

import json

import pytest
from bench_scripts import script

from onecycle.datasets.load import load

bench = script("to_accuracy")
SHORT = ["--data", "digits", "--recipe", "digits", "--epochs", "0.4", "--precision", "fp32"]


def said(capsys, *more):
    bench.main([*SHORT, *more])
    return json.loads(capsys.readouterr().out)


def test_it_says_the_seconds_and_the_accuracies(capsys):
    found = said(capsys, "--warm-up", "1")
    assert 0 < found["train_seconds"] < found["seconds"] and found["warm_up_seconds"] > 0
    assert 0 < found["test_accuracy"] <= 1 and 0 < found["test_accuracy_plain"] <= 1
    assert "val_accuracy" not in found and found["recipe"] == "digits+custom"


def test_a_choice_does_not_see_the_test_part(capsys, monkeypatch):
    judged = []

    def probabilities(model, split, *rest):
        judged.append(len(split))
        return real(model, split, *rest)

    real = bench.probabilities
    monkeypatch.setattr(bench, "probabilities", probabilities)
    found = said(capsys, "--validation", "0.2")
    assert "test_accuracy" not in found
    assert judged == [pytest.approx(0.2 * len(load("digits").train), abs=10)] * 2


def test_a_warm_up_changes_nothing(capsys):
    plain, warmed = said(capsys), said(capsys, "--warm-up", "2")
    for key in ("test_accuracy", "test_accuracy_plain"):
        assert plain[key] == warmed[key]
