"""Damaged and hostile checkpoints: refused, and the one before is used."""

import json
import os
import pickle
import resource
import struct

import numpy as np
import pytest
import torch
from checkpoint_files import EXTRA, damage, saved

from onecycle import files
from onecycle.errors import DiskError, OnecycleError
from onecycle.run import checkpoint, conduct, record
from onecycle.run.events import Progress
from onecycle.run.job import Job


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
