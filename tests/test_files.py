"""Files are whole or not there, and a folder has one writer."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from onecycle import files
from onecycle.errors import DiskError, OnecycleError


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_one_writer_a_folder(tmp_path):
    lock = files.FolderLock(tmp_path)
    with pytest.raises(OnecycleError, match=f"process {os.getpid()}"):
        files.FolderLock(tmp_path)
    lock.release()
    files.FolderLock(tmp_path).release()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with pytest.raises(DiskError, match=r"can't be locked \(No locks available\)"):
        files.FolderLock(tmp_path)


def test_a_killed_holder_leaves_no_lock(tmp_path):
    code = f"""
from pathlib import Path; import os, signal
from onecycle.files import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    files.FolderLock(tmp_path).release()


def test_a_write_is_durable_before_it_shows(tmp_path, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace

    def fsync(descriptor):
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        real_fsync(descriptor)

    def replace(self, target):
        calls.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(tmp_path), "replace", replace)
    files.write_bytes(tmp_path / "a", b"new")
    assert calls == ["fsync file", "rename", "fsync folder"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    files.write_bytes(tmp_path / "a", b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.DiskError, match="No space left"):
        files.write_bytes(tmp_path / "a", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
