"""A disk that really fills up under a run: a tmpfs of some megabytes that the test mounts."""

import ctypes
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from short_runs import begin_or_go_on, start
from unbroken_run import assert_as_unbroken, unbroken

from onecycle import files
from onecycle.run import checkpoint, conduct, record
from onecycle.training.state import create

__all__ = ["unbroken"]
DISK = 24_000_000  # bytes; a run asks for 16 MB and more before it begins
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
PRIVATE, RECURSIVE = 1 << 18, 1 << 14
NO_MOUNTS = 77


def small_disk(folder):
    """Mount an empty tmpfs at `folder`, seen by this process alone; False if that is forbidden."""
    libc, user, group = ctypes.CDLL(None), os.getuid(), os.getgid()
    if libc.unshare(NEW_MOUNTS):  # not root, which one may be in a namespace of one's own
        if libc.unshare(NEW_USER | NEW_MOUNTS):
            return False
        me = {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}
        for name, text in me.items():
            Path("/proc/self", name).write_text(text)
    libc.mount(None, b"/", None, PRIVATE | RECURSIVE, None)
    options = f"size={DISK}".encode()
    return libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) == 0


def run_that_fills(folder, room, kept):
    """A run on a small disk, of which `room` bytes are left once it is at step 5; then as many.

    What is in its folder afterwards is copied to `kept`, whose disk has room.
    """
    if not small_disk(folder):
        os._exit(NO_MOUNTS)
    real = conduct._save

    def save(live):
        if live.state.step == 5:
            fill(folder, room)
        real(live)

    conduct._save = save
    try:
        begin_or_go_on(folder / "run")
    except files.DiskError as error:
        code = error.exit_code
        text = str(error)
    finally:
        shutil.copytree(folder / "run", kept / "run")
    (kept / "said").write_text(text)
    os._exit(code)


def fill(folder, room):
    """Leave `room` bytes free, to a page."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        file.truncate(0)
        left = shutil.disk_usage(folder).free - room
        while left > 0:
            left -= file.write(bytes(min(left, 2**20)))


def fill_at(folder, unbroken, places):
    """Runs whose disk fills up with more and more room left; each goes on where there is room."""
    steps = set()
    size = sum(p.stat().st_size for p in (unbroken[0] / record.CHECKPOINTS).glob("*24.*"))
    for place in range(places):
        disk, kept = folder / f"disk{place}", folder / f"kept{place}"
        disk.mkdir(), kept.mkdir()
        process = start(run_that_fills, disk, size * place // places, kept)
        process.join()
        if process.exitcode == NO_MOUNTS:
            pytest.skip("nothing may be mounted here")
        assert process.exitcode == 6
        said = (kept / "said").read_text()
        assert "No space left on device" in said and str(disk) in said
        assert not list(kept.rglob("*.tmp")), "no temporary file is left"
        steps.add(checkpoint.newest(kept / "run").step)
        sound, damaged = checkpoint.check_all(kept / "run")
        assert len(sound) == 2 and not damaged
        process = start(begin_or_go_on, kept / "run")
        process.join()
        assert process.exitcode == 0
        assert_as_unbroken(kept / "run", unbroken)
    return {"newest_checkpoints": sorted(steps)}


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_the_run_goes_on(tmp_path, unbroken):
    fill_at(tmp_path, unbroken, places=2)


def test_a_disk_without_room_for_a_run_is_refused_before_its_first_step(tmp_path):
    (tmp_path / "disk").mkdir(), (tmp_path / "kept").mkdir()
    process = start(short_disk, tmp_path / "disk", tmp_path / "kept")
    process.join()
    if process.exitcode == NO_MOUNTS:
        pytest.skip("nothing may be mounted here")
    assert process.exitcode == 6
    said = (tmp_path / "kept" / "said").read_text()
    assert "MB are free there, and a run needs" in said


def short_disk(folder, kept):
    """A run on a disk that is nearly full already."""
    if not small_disk(folder):
        os._exit(NO_MOUNTS)
    fill(folder, DISK // 2)
    try:
        begin_or_go_on(folder / "run")
    except files.DiskError as error:
        (kept / "said").write_text(str(error))
        assert not any((folder / "run" / record.CHECKPOINTS).iterdir())
        os._exit(error.exit_code)


def test_where_a_run_could_begin_it_can_go_on(tmp_path, tiny, make_recipe, machine, monkeypatch):
    """On a disk that has just the room that a run asks for before its first step."""
    state = create(make_recipe(), tiny, machine, 0)
    weights = sum(value.nbytes for value in state.model.state_dict().values())
    room = (checkpoint.KEPT + 1) * checkpoint.STATES * weights + checkpoint.SPARE

    def usage(_folder):
        return SimpleNamespace(free=room - files.size(tmp_path))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    saver = checkpoint.Saver(tmp_path)
    saver.check_space(state)
    for step in range(checkpoint.KEPT):
        state.step = step
        saver.save(state, dict.fromkeys(checkpoint.EXTRA, 0))
    saver.check_space(state)
    (tmp_path / "more").write_bytes(bytes(room))
    with pytest.raises(files.DiskError, match="a run needs"):
        saver.check_space(state)
