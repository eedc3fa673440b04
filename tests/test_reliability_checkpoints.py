"""Damaged, hostile and half-written checkpoints; full disks; the order of a durable write."""

import json
import os
import pickle
import resource
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from onecycle import files
from onecycle.errors import DiskError, OnecycleError
from onecycle.run import checkpoint, conduct, record
from onecycle.run.events import Progress
from onecycle.run.job import Job
from onecycle.training.state import create

EXTRA = {
    "recipe_digest": "r",
    "data_digest": "d",
    "journal_bytes": 0,
    "seconds": 1.0,
    "train_seconds": 1.0,
}


@pytest.fixture
def state(tiny, make_recipe, machine):
    return create(make_recipe(), tiny, machine, seed=0)


def saved(state, folder, steps=(8, 9)):
    saver = checkpoint.Saver(folder)
    for state.step in steps:
        saver.save(state, EXTRA)
    return saver.folder


def damage(folder, changes, seed=0):
    """`changes` random bit flips and a tenth as many truncations of step 9; who was refused how."""
    draw = np.random.default_rng(seed)
    pair = [folder / "step-00000009.safetensors", folder / "step-00000009.json"]
    whole = {path: path.read_bytes() for path in pair}
    for i in range(changes + changes // 10):
        path = pair[i % 4 == 0]  # a quarter of the changes hit the small JSON
        content = bytearray(whole[path])
        if i < changes:
            content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        else:
            del content[draw.integers(len(content)) :]
        path.write_bytes(content)
        yield checkpoint.newest(folder.parent)
        path.write_bytes(whole[path])


def test_flipped_bits_and_truncations_are_refused_and_the_one_before_is_used(state, tmp_path):
    count = 0
    for kept in damage(saved(state, tmp_path), 100):
        assert kept.step == 8
        assert len(kept.damaged) == 1 and "step-00000009" in kept.damaged[0]
        count += 1
    assert count == 110
    assert checkpoint.newest(tmp_path).step == 9


def test_even_a_last_line_break_that_is_lost_is_refused(state, tmp_path):
    path = saved(state, tmp_path) / "step-00000009.json"
    path.write_bytes(path.read_bytes()[:-1])
    assert checkpoint.newest(tmp_path).step == 8


def test_a_damaged_checkpoint_and_the_one_used_are_both_named(
    tiny, make_recipe, machine, tmp_path, capsys
):
    from onecycle.progress import Show

    job = Job(make_recipe(), tiny, machine, 0, tmp_path, save_every="1step")
    for event in conduct.conduct(job):
        if isinstance(event, Progress) and event.step == 5:
            break
    last = tmp_path / "checkpoints" / "step-00000004.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    kept = checkpoint.newest(tmp_path)
    Show().resumed(job, kept)
    said = capsys.readouterr().err
    assert "damaged checkpoint: step-00000004.json" in said and "step 3" in said
    for _ in conduct.conduct(job, kept):
        pass
    events = [json.loads(line) for line in (tmp_path / record.EVENTS).read_text().splitlines()]
    resumed = next(event for event in events if event["event"] == "resume")
    assert resumed["step"] == 3 and "step-00000004" in resumed["damaged"][0]


def test_lightning_688_19970_timm_a_truncated_checkpoint_that_sorts_last_is_not_chosen(
    state, tmp_path
):
    folder = saved(state, tmp_path)
    for suffix in ("json", "safetensors"):
        content = (folder / f"step-00000009.{suffix}").read_bytes()
        (folder / f"step-99999999.{suffix}").write_bytes(content[: len(content) // 2])
    assert checkpoint.newest(tmp_path).step == 9
    for suffix in ("json", "safetensors"):  # a whole one under another name is no newer
        content = (folder / f"step-00000008.{suffix}").read_bytes()
        (folder / f"step-99999999.{suffix}").write_bytes(content)
    kept = checkpoint.newest(tmp_path)
    assert kept.step == 9 and "under another name" in kept.damaged[0]


def test_after_a_damaged_checkpoint_two_sound_ones_are_kept_again(state, tmp_path):
    folder = saved(state, tmp_path)
    (folder / "step-00000009.json").write_bytes(b"{}")
    saver = checkpoint.Saver(tmp_path, sound=[checkpoint.newest(tmp_path).step])
    state.step = 10
    saver.save(state, EXTRA)
    assert checkpoint.check_all(tmp_path) == ([8, 10], [])


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def payloads(trace):
    """Ten files that would run code for a reader who trusts them."""
    pickles = [pickle.dumps(Payload(trace), protocol) for protocol in range(6)]
    torch_file = trace.with_name("zip")
    torch.save({"model": Payload(trace)}, torch_file)
    array = np.array([Payload(trace)], dtype=object)
    np.save(trace.with_name("a.npy"), array, allow_pickle=True)
    np.savez(trace.with_name("a.npz"), array)
    header = json.dumps({"__metadata__": {"code": "__import__('os').system('id')"}}).encode()
    return [
        *pickles,
        torch_file.read_bytes(),
        trace.with_name("a.npy").read_bytes(),
        trace.with_name("a.npz").read_bytes(),
        struct.pack("<Q", len(header)) + header + pickles[2],
    ]


def with_right_checksums(folder, step, content):
    """`content` as the tensors of `step`, in a checkpoint whose checksums hold."""
    meta = {"step": step, "sha256": files.sha256_bytes(content), **EXTRA}
    meta[checkpoint.CHECKSUM] = files.sha256_bytes(files.json_bytes(meta))
    (folder / f"step-{step:08d}.safetensors").write_bytes(content)
    (folder / f"step-{step:08d}.json").write_bytes(files.json_bytes(meta))


def test_ten_pickle_payloads_in_place_of_any_file_are_inert_and_refused(state, tmp_path):
    folder, trace = saved(state, tmp_path), tmp_path / "ran"
    contents = payloads(trace)
    assert len(contents) == 10
    with pytest.raises(FileExistsError):  # the payloads do work, where they are trusted
        for content in contents[:2]:
            pickle.loads(content)
    trace.rmdir()
    for content in contents:
        with_right_checksums(folder, 9, content)
        kept = checkpoint.newest(tmp_path)
        assert kept.step == 8 and "step-00000009" in kept.damaged[0]
        (folder / "step-00000009.json").write_bytes(content)
        assert checkpoint.newest(tmp_path).step == 8
        with pytest.raises(DiskError):
            files.read_json(folder / "step-00000009.json")
        for name in ("test_labels.npy", "test_probabilities.npy"):
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DiskError):
            record.read_predictions(tmp_path, "test")
        assert not trace.exists()


HUGE = 2**40
HEADERS = {
    "a header of a terabyte": struct.pack("<Q", HUGE) + b"{}",
    "a header of all numbers": b"\xff" * 8 + b"{}",
    "no JSON": struct.pack("<Q", 4) + b"\x80\x04N.",
    "deep JSON": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a tensor of a terabyte": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]},
    "a size that overflows": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]},
    "a shape without data": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 8]},
    "offsets before the start": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
    "offsets backwards": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
    "another type": {"dtype": "OBJ", "shape": [2], "data_offsets": [0, 8]},
    "nothing": b"",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_malformed_header_costs_no_memory_and_is_refused(state, tmp_path, header):
    if isinstance(header, dict):
        text = json.dumps({"a": header}).encode()
        header = struct.pack("<Q", len(text)) + text + bytes(8)
    folder = saved(state, tmp_path)
    with_right_checksums(folder, 9, header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert checkpoint.newest(tmp_path).step == 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_file_larger_than_any_of_ours_is_not_read(state, tmp_path):
    folder = saved(state, tmp_path)
    for suffix in ("safetensors", "json"):
        with open(folder / f"step-00000009.{suffix}", "ab") as file:
            file.truncate(2**40)  # sparse: it takes no room
        assert checkpoint.newest(tmp_path).step == 8


def test_an_array_that_declares_a_terabyte_is_refused(tmp_path):
    np.save(tmp_path / "test_labels.npy", np.zeros(2))
    content = (tmp_path / "test_labels.npy").read_bytes()
    huge = content.replace(b"(2,)", b"(%d,)" % 2**50).replace(b" " * 15, b"", 1)
    for name in ("test_labels.npy", "test_probabilities.npy"):
        (tmp_path / name).write_bytes(huge)
    with pytest.raises(DiskError, match="no whole array"):
        record.read_predictions(tmp_path, "test")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("model.fc.weight"),
        lambda tensors: tensors.update({"optimizer.fc.weight.exp_avg": torch.zeros(HUGE // 2**30)}),
        lambda tensors: tensors.update({"optimizer.nothing": torch.zeros(1)}),
        lambda tensors: tensors.update({"model.fc.weight": torch.zeros(1)}),
        lambda tensors: tensors.update({"optimizer.": torch.zeros(1)}),
    ],
)
def test_a_checkpoint_of_another_network_ends_in_one_line(
    state, tiny, make_recipe, machine, tmp_path, change
):
    tensors = state.tensors()
    change(tensors)
    job = Job(make_recipe(), tiny, machine, 0, tmp_path)
    with pytest.raises(OnecycleError, match="step 0 doesn't fit the recipe") as stopped:
        next(conduct.conduct(job, checkpoint.Checkpoint(tensors, 0, EXTRA, [])))
    assert "\n" not in str(stopped.value)


def test_a_checkpoint_past_the_end_is_refused(state, tiny, make_recipe, machine, tmp_path):
    job = Job(make_recipe(), tiny, machine, 0, tmp_path)
    with pytest.raises(OnecycleError, match="of step 10, and the recipe has 9"):
        next(conduct.conduct(job, checkpoint.Checkpoint(state.tensors(), 10, EXTRA, [])))


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


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


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
