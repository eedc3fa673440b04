"""`onecycle doctor`: what is well, and each thing that is not, by name."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import short_runs

import onecycle
from onecycle import cli, files
from onecycle.api import diagnosis
from onecycle.errors import DiskError, RecipeError
from onecycle.machine import Machine
from onecycle.run import checkpoint, record, reopen


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    process = short_runs.start(short_runs.begin_or_go_on, folder)
    process.join()
    assert process.exitcode == 0
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)
    return shutil.copytree(finished, tmp_path / "run")


def wrong(found):
    return [line.name for line in found.lines if not line.ok]


def test_all_is_well_and_each_thing_has_its_line(run):
    found = onecycle.doctor(run)
    assert found.ok and wrong(found) == []
    lines = {line.name: line.found for line in found.lines}
    assert "torch" in lines["versions"] and "fp32" in lines["computes on"]
    assert "GB free" in lines["working folder"] and "GB free" in lines["cache"]
    assert lines["cifar10"] == "not here; downloaded when asked for"
    assert lines["checkpoints"] == "whole at steps: 23, 24"
    assert lines["recipe"] == onecycle.load(run).recipe.digest()
    assert lines["predictions"] == "give the test accuracy of the summary"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another_recipe(run):
    text = (run / record.RECIPE).read_text().replace('"batch_size": 8', '"batch_size": 16')
    (run / record.RECIPE).write_text(text)


def another_accuracy(run):
    summary = files.read_json(run / record.SUMMARY)
    files.write_json(run / record.SUMMARY, summary | {"test_accuracy": 0.123})


SPOIL = {
    "recipe": another_recipe,
    "checkpoint": lambda run: flip(run / "checkpoints" / "step-00000024.safetensors"),
    "journal": lambda run: (run / record.EVENTS).write_bytes(
        (run / record.EVENTS).read_bytes()[:-3]
    ),
    "predictions": another_accuracy,
    "weights": lambda run: flip(run / record.WEIGHTS),
    "summary.json": lambda run: (run / record.SUMMARY).write_text("{"),
}


@pytest.mark.parametrize("name", SPOIL)
def test_what_is_not_well_is_named(run, name):
    SPOIL[name](run)
    found = onecycle.doctor(run)
    assert not found.ok and name in wrong(found)
    assert all("\n" not in line.found for line in found.lines)


def test_a_shorter_journal_is_noticed_though_its_lines_are_whole(run):
    lines = (run / record.EVENTS).read_bytes().splitlines(keepends=True)
    (run / record.EVENTS).write_bytes(b"".join(lines[:10]))
    assert wrong(onecycle.doctor(run)) == ["journal"]


def test_a_run_without_a_sound_checkpoint_is_not_well(run):
    for path in (run / record.CHECKPOINTS).glob("*.json"):
        path.write_bytes(b"\x80\x04N.")
    assert wrong(onecycle.doctor(run)) == ["checkpoints", "checkpoint", "checkpoint"]
    assert checkpoint.check_all(run)[0] == []


def test_a_full_disk_and_a_missing_extra_are_told(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 5_000_000})
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda _: usage)
    asked = ["torch>=2", 'torch>=2; extra == "a-b"', 'nothing.of_it>=1 ; extra == "a-b"']
    asked += ['numpy; python_version > "3" and extra == "c"', 'pytest; extra == "test"']
    asked += ['onecycle[a-b]; extra == "d"', 'numpy; extra == "d"']
    monkeypatch.setattr(diagnosis.metadata, "requires", lambda _: asked)
    found = onecycle.doctor()
    assert wrong(found) == ["working folder", "cache"]
    extras = {line.name: line.found for line in found.lines if line.name.startswith("[")}
    assert extras == {
        "[a-b]": "pip install 'onecycle[a-b]'",
        "[c]": f"numpy {np.__version__}",
        "[d]": "pip install 'onecycle[d]'",
    }


@pytest.mark.skipif(os.getuid() != 0, reason="to be another user takes root")
def test_a_cache_that_may_not_be_looked_into_is_told(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    code = "import os; from onecycle.api import diagnosis as d; os.setuid(65534); "
    code += "print([line.ok for line in (*d._disks(), *d._data())])"
    told = os.environ | {"ONECYCLE_CACHE": str(secret / "cache")}
    told.pop("ONECYCLE_DATA", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd="/", env=told, capture_output=True, text=True)
    assert done.stdout.strip().endswith("False, False, False]"), done.stderr


def test_the_extras_are_those_of_the_package():
    names = {line.name.strip("[]") for line in onecycle.doctor().lines if line.name[0] == "["}
    assert names == set(metadata.metadata("onecycle").get_all("Provides-Extra")) - {"test"}


def test_data_that_is_not_where_it_should_be_is_not_well(tmp_path, monkeypatch):
    monkeypatch.setenv("ONECYCLE_DATA", str(tmp_path / "nowhere"))
    assert wrong(onecycle.doctor()) == ["cifar10", "cifar100"]


def test_the_command_marks_lines_and_ends_in_one(run, capsys, monkeypatch):
    def outcome(*words):
        monkeypatch.setattr(sys, "argv", ["onecycle", "doctor", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
        return stopped.value.code, capsys.readouterr().out

    code, out = outcome(run, "--json")
    assert code == 0 and json.loads(out)["ok"] is True
    SPOIL["checkpoint"](run)
    code, out = outcome(run)
    assert code == 1
    (marked,) = (line for line in out.splitlines() if line.startswith("! "))
    assert "step-00000024.safetensors" in marked
    assert outcome(run, "--json")[0] == 1


def test_damaged_weights_are_not_judged_on(run):
    flip(run / record.WEIGHTS)
    with pytest.raises(DiskError, match=r"model\.safetensors: its checksum does not hold"):
        reopen.network(run, Machine("cpu", "fp32", 1, "for the tests"))


def test_no_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no run is there"):
        onecycle.doctor(tmp_path)
