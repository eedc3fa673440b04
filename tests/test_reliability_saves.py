"""How a run saves: whole and durable, on a full disk too, with its journal, as often as asked."""

import json
import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import EXTRA, saved

from onecycle import files
from onecycle.errors import DiskError, OnecycleError
from onecycle.run import checkpoint, conduct, record
from onecycle.run.events import Progress
from onecycle.run.job import Job

# A disk that is full ------------------------------------------------------------------------


class FullAfter:
    """Inside the block no file of this process can grow past so many bytes."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writes_that_fail_at_twenty_places_leave_the_old_checkpoint_and_nothing_else(
    state, tmp_path
):
    folder = saved(state, tmp_path)
    before = contents(folder)
    size = len(before["step-00000009.safetensors"])
    saver = checkpoint.Saver(tmp_path, sound=[8, 9])
    state.step = 10
    for full in np.linspace(0, size - 1, 20).astype(int):
        with FullAfter(int(full)), pytest.raises(DiskError, match="step-00000010") as stopped:
            saver.save(state, EXTRA)
        assert stopped.value.exit_code == 6
        assert contents(folder) == before
    assert checkpoint.newest(tmp_path).step == 9
    saver.save(state, EXTRA)  # once there is room again
    assert checkpoint.check_all(tmp_path) == ([9, 10], [])


def test_a_journal_on_a_full_disk_has_whole_lines_only(tmp_path):
    journal = record.Journal(tmp_path, 0)
    for number in range(20):
        journal.write("save", step=number)
    size = (tmp_path / record.EVENTS).stat().st_size
    for room in range(20):
        with FullAfter(size + room), pytest.raises(DiskError, match=r"events\.jsonl"):
            journal.write("save", step=20)
        journal.close()
        assert (tmp_path / record.EVENTS).stat().st_size == size
        journal = record.Journal(tmp_path, size)
    journal.write("save", step=20)
    journal.close()
    lines = (tmp_path / record.EVENTS).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(21))


def test_free_space_is_checked_before_the_first_step(
    tiny, make_recipe, machine, tmp_path, monkeypatch
):
    usage = type("Usage", (), {"free": 2_000_000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    job = Job(make_recipe(), tiny, machine, 0, tmp_path)
    with pytest.raises(DiskError, match=r"2 MB are free.*needs 1\d MB") as stopped:
        next(conduct.conduct(job))
    assert stopped.value.exit_code == 6
    assert not any((tmp_path / "checkpoints").iterdir())


def test_the_room_that_is_asked_for_is_enough(tiny, make_recipe, machine, tmp_path):
    """More than what three checkpoints take, and not many times as much."""
    needed = []
    real = files.check_space
    files.check_space = lambda folder, room: needed.append(room)
    try:
        for _ in conduct.conduct(Job(make_recipe("model.width=16"), tiny, machine, 0, tmp_path)):
            pass
    finally:
        files.check_space = real
    largest = max(path.stat().st_size for path in (tmp_path / "checkpoints").iterdir())
    room = needed[0] - checkpoint.SPARE
    assert 3 * largest * 0.98 < room < 3 * largest * 1.5


def test_a_checkpoint_is_synced_before_it_is_named_and_its_json_comes_last(
    state, tmp_path, monkeypatch
):
    saver, calls = checkpoint.Saver(tmp_path), []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("fsync folder" if is_folder else "fsync file")
        fsync(descriptor)

    def watched_replace(source, target):
        calls.append(f"rename {Path(target).suffix}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    saver.save(state, EXTRA)
    one = ["fsync file", "rename {}", "fsync folder"]
    assert calls == [call.format(end) for end in (".safetensors", ".json") for call in one]


def test_what_a_killed_process_had_begun_to_write_is_removed(state, tmp_path):
    folder = saved(state, tmp_path)
    (folder / ".step-00000010.safetensors.123.tmp").write_bytes(b"half")
    (tmp_path / ".summary.json.123.tmp").write_bytes(b"half")
    checkpoint.Saver(tmp_path, sound=[8, 9])
    assert not list(tmp_path.rglob("*.tmp"))
    assert checkpoint.newest(tmp_path).step == 9


# The journal --------------------------------------------------------------------------------


def test_what_lies_past_the_checkpoint_is_cut_visibly(tiny, make_recipe, machine, tmp_path):
    job = Job(make_recipe(), tiny, machine, 0, tmp_path, save_every="4steps")
    for event in conduct.conduct(job):
        if isinstance(event, Progress) and event.step == 7:
            break
    with open(tmp_path / record.EVENTS, "ab") as file:
        file.write(b'{"event": "step", "st')
    for _ in conduct.conduct(job, checkpoint.newest(tmp_path)):
        pass
    events = [json.loads(line) for line in (tmp_path / record.EVENTS).read_text().splitlines()]
    resumed = next(event for event in events if event["event"] == "resume")
    # Cut: the line about the save, three steps, an epoch, and the half line.
    assert (resumed["step"], resumed["cut_lines"]) == (4, 6)
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 10))


@pytest.mark.parametrize("spoil", [lambda text: text[:-9], lambda text: b"[]\n" + text[3:]])
def test_a_damaged_journal_is_named_and_left_alone(tiny, make_recipe, machine, tmp_path, spoil):
    job = Job(make_recipe(), tiny, machine, 0, tmp_path, save_every="4steps")
    for _ in conduct.conduct(job):
        pass
    kept = checkpoint.newest(tmp_path)
    path = tmp_path / record.EVENTS
    path.write_bytes(spoil(path.read_bytes()[: kept.extra["journal_bytes"]]))
    damaged = path.read_bytes()
    with pytest.raises(DiskError, match=r"events\.jsonl"):
        next(conduct.conduct(job, kept))
    assert path.read_bytes() == damaged


# How often ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "steps", "seconds"),
    [
        ("100steps", 100, None),
        ("1 step", 1, None),
        ("2epochs", 40, None),
        ("0.5epochs", 10, None),
        ("90s", None, 90),
        ("1.5 s", None, 1.5),
        ("5min", None, 300),
        ("0.5min", None, 30),
    ],
)
def test_how_often_to_save_has_a_unit(text, steps, seconds):
    assert checkpoint.every(text, steps_per_epoch=20) == checkpoint.Every(steps, seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "0steps", "-1steps", "1.5steps", "5 ss", "s", "epochs", "5 m"]
)
def test_how_often_without_a_unit_is_refused(text):
    with pytest.raises(OnecycleError, match=r"--save-every .*100steps, 2epochs, 90s or 5min"):
        checkpoint.every(text)


def test_saving_every_so_often_does_that_and_at_the_end(tiny, make_recipe, machine, tmp_path):
    job = Job(make_recipe(), tiny, machine, 0, tmp_path, save_every="2steps")
    for _ in conduct.conduct(job):
        pass
    events = map(json.loads, (tmp_path / record.EVENTS).read_text().splitlines())
    assert [e["step"] for e in events if e["event"] == "save"] == [0, 2, 4, 6, 8, 9]


def test_saving_is_paid_for_by_the_time_since_the_last_save(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(files, "write_bytes", lambda *_: now.__setitem__(0, now[0] + 0.5))
    saver = checkpoint.Saver(tmp_path)
    assert saver.due(1)
    state = type("State", (), {"step": 1, "tensors": lambda self: {}})()
    assert saver.save(state, {}) == 1.0  # two files
    now[0] += 99.9
    assert not saver.due(1)
    now[0] += 0.2
    assert saver.due(1)
