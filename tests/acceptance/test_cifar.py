"""Long forms on all of CIFAR-10: `ONECYCLE_DATA=<folder or archive> pytest tests/acceptance`."""

import json
import os
import resource
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "onecycle", "train", "--data", "cifar10"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A cache that is empty at first."""
    assert "ONECYCLE_DATA" in os.environ, "set ONECYCLE_DATA to CIFAR-10's folder or archive"
    return {**os.environ, "ONECYCLE_CACHE": str(tmp_path_factory.mktemp("cache"))}


def load_seconds(environment):
    code = (
        "import time; from onecycle.datasets.load import load; t = time.perf_counter(); "
        "data = load('cifar10'); data.mean; "
        "print(time.perf_counter() - t, len(data.train), len(data.test))"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    inside, train, test = done.stdout.split()
    print(f"loading: {float(inside):.1f} s of {time.perf_counter() - start:.1f} s")
    assert (int(train), int(test)) == (50_000, 10_000)
    return time.perf_counter() - start


def test_loads_in_a_minute_at_first_and_in_three_seconds_after(environment):
    assert load_seconds(environment) < 60
    assert load_seconds(environment) < 3


def test_training_stays_under_2_gb(environment, tmp_path):
    done = subprocess.run(
        [*COMMAND, "--epochs", "0.1", "--val-fraction", "0.02", "--json"],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    print(done.stderr)
    assert json.loads(done.stdout)["parameters"] == 6_573_120
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"peak: {peak / 1e9:.2f} GB")
    assert peak < 2e9


def test_saving_costs_under_one_per_cent(environment, tmp_path):
    subprocess.run(
        [*COMMAND, "--epochs", "1", "--out", "run", "-q"],
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    saves = [e["seconds"] for e in map(json.loads, lines) if e["event"] == "save"]
    seconds = json.loads((tmp_path / "run" / "summary.json").read_text())["seconds"]
    print(f"saving: {sum(saves):.2f} s of {seconds:.0f} s in {len(saves)} saves")
    # The first save measures the cost and the last one is owed whatever it costs.
    assert sum(saves[1:-1]) < 0.01 * seconds
