"""A short run that nothing happened to, and whether another ended as it did."""

import json
import time

import pytest
import short_runs
from short_runs import begin_or_go_on, start

from onecycle.run import record


def events(folder):
    lines = (folder / record.EVENTS).read_bytes()
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line) for line in lines.splitlines()]


def steps(folder):
    return [event["step"] for event in events(folder) if event["event"] == "step"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folder of a run that nothing happened to, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    start(int).join()  # the server imports everything once
    begun = time.monotonic()
    process = start(begin_or_go_on, folder)
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - begun


def assert_as_unbroken(folder, unbroken):
    assert short_runs.done(folder) == short_runs.done(unbroken[0])
    assert steps(folder) == list(range(1, short_runs.STEPS + 1)), "the journal agrees"
    assert not list(folder.rglob("*.tmp"))
    rows = record.read_metrics(folder)
    assert [(r["train_loss"], r["train_accuracy"]) for r in rows] == list(train_figures(folder))


def train_figures(folder):
    """Mean loss and accuracy of each epoch's training images, from the journal alone."""
    steps = [event for event in events(folder) if event["event"] == "step"]
    for epoch in range(steps[-1]["epoch"] + 1):
        its = [step for step in steps if step["epoch"] == epoch]
        images = sum(step["images"] for step in its)
        loss = sum(step["loss"] * step["images"] for step in its) / images
        yield loss, sum(step["correct"] for step in its) / images


def finish(folder, unbroken):
    process = start(begin_or_go_on, folder)
    process.join()
    assert process.exitcode == 0
    assert_as_unbroken(folder, unbroken)
