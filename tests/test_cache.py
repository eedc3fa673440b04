"""The cache: every image is decoded once, and nothing is ever half there."""

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from trees import Tree, encoded, refused, same, write_folder, write_tar, write_zip

from onecycle.datasets import cache, entry, folder, images
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.decode import Found
from onecycle.datasets.load import load
from onecycle.errors import DataError, DiskError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the name of each image that is decoded."""
    names: list[str] = []
    real = images._done

    def counting(work: Callable[[bytes], Found], task: list[folder.Placed]) -> list[Found]:
        names.extend(place.name for place, _ in task)
        return real(work, task)

    monkeypatch.setattr(images, "_done", counting)
    return names


def test_decodes_once(
    tmp_path: Path, tree: Tree, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (write_folder(tmp_path / "pets", tree), write_zip(tmp_path / "pets.zip", tree)):
        decoded.clear()
        first = load(path)
        assert sorted(decoded) == sorted(tree)
        assert same(load(path), first)
        assert len(decoded) == len(tree)
    with monkeypatch.context() as patch:  # a second load doesn't even read the files
        patch.setattr(cache, "sha256_file", None)
        assert same(load(path), first)
    moved = (tmp_path / "pets.zip").rename(tmp_path / "other.zip")
    assert load(moved).name == "other"
    for name in tree:
        os.utime(tmp_path / "pets" / name, (1, 1))
    assert same(load(tmp_path / "pets"), first)
    assert len(decoded) == len(tree)  # touched, but equal
    write_folder(tmp_path / "pets", {"train/cat/0.png": encoded(seed=99)})
    assert load(tmp_path / "pets").digest != first.digest
    assert len(decoded) == 2 * len(tree)


@pytest.mark.parametrize("file", ["train.u8", "test.u8", "train.npy", "names.json", "meta.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "empty", "garbage"])
def test_damaged_entry_is_rebuilt(
    tmp_path: Path, tree: Tree, cache_root: Path, decoded: list[str], file: str, damage: str
) -> None:
    path = write_tar(tmp_path / "pets.tar", tree)
    first = load(path)
    copy = first.train.images().copy()
    (entry,) = (cache_root / "images").iterdir()
    content = (entry / file).read_bytes()
    (entry / file).unlink()
    if damage != "missing":
        new = {"short": content[:-9], "empty": b"", "garbage": b"[1, 2]" * 9}[damage]
        (entry / file).write_bytes(new)
    again = load(path)
    assert again.digest == first.digest and np.array_equal(again.train.images(), copy)
    assert len(decoded) == 2 * len(tree)
    assert list((cache_root / "images").iterdir()) == [entry]
    assert (entry / file).read_bytes() == content


def test_entry_whose_parts_disagree_is_rebuilt(
    tmp_path: Path, tree: Tree, cache_root: Path, decoded: list[str]
) -> None:
    path = write_tar(tmp_path / "pets.tar", tree)
    first = load(path)
    (entry,) = (cache_root / "images").iterdir()
    expected = first.train.images().copy()
    names = (entry / "names.json").read_bytes()
    arrays = np.load(entry / "train.npy")

    def store(rows: list[int], labels: list[int]) -> None:
        np.save(entry / "train.npy", np.array([rows, labels]))

    rows, labels = arrays.tolist()
    damages: list[Callable[[], object]] = [
        lambda: (entry / "train.u8").write_bytes(bytes(8 * 16 * 16 * 3 + 1)),
        lambda: (entry / "names.json").write_bytes(names.replace(b'"train/cat/0.png",', b"")),
        lambda: store([rows[0], *rows[:-1]], labels),
        lambda: store(rows, [2, *labels[1:]]),
        lambda: store(rows, [-1, *labels[1:]]),
    ]
    for i, damage in enumerate(damages):
        damage()
        again = load(path)
        assert (again.digest, again.train.names) == (first.digest, first.train.names)
        assert np.array_equal(again.train.images(), expected)
        assert len(decoded) == (i + 2) * len(tree)


def test_damaged_index_is_rebuilt(
    tmp_path: Path, tree: Tree, cache_root: Path, decoded: list[str]
) -> None:
    path = write_tar(tmp_path / "pets.tar", tree)
    first = load(path)
    (index,) = (cache_root / "index").iterdir()
    content = index.read_bytes()
    for damaged in (b"", b"[]", b'{"content": 7}', b'{"content": "../../x"}'):
        index.write_bytes(damaged)
        assert same(load(path), first)
        assert index.read_bytes() == content
    assert len(decoded) == len(tree)


def interrupt(count: int) -> None:
    raise KeyboardInterrupt


def test_interrupted_build_leaves_nothing(tmp_path: Path, tree: Tree, cache_root: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", tree)
    with pytest.raises(KeyboardInterrupt):
        load(path, interrupt)
    assert [file for file in cache_root.rglob("*") if file.is_file()] == []
    assert list((cache_root / "images").iterdir()) == []
    assert len(load(path).train) == 8


def test_full_disk(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    text = refused(write_tar(tmp_path / "pets.tar", tree), DiskError)
    assert "No space left on device" in text


def test_cache_that_is_a_file(tmp_path: Path, tree: Tree, cache_root: Path) -> None:
    cache_root.write_bytes(b"")
    with pytest.raises(DiskError, match="cannot make the folder"):
        load(write_tar(tmp_path / "pets.tar", tree))


def test_entry_is_synced_before_it_appears(
    tmp_path: Path, tree: Tree, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, rename = os.fsync, Path.rename

    def recorded_sync(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def recorded_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    load(write_tar(tmp_path / "pets.tar", tree))
    before, after = calls[: calls.index("rename")], calls[calls.index("rename") + 1 :]
    assert {"train.u8", "test.u8"} < set(before)
    assert before[-1].startswith(cache.BUILDING) and after[0] == "images"


def test_lost_race_uses_the_winners_entry(tmp_path: Path, tree: Tree, cache_root: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", tree)
    winners: list[tuple[Dataset, int]] = []

    def meanwhile(count: int) -> None:
        winner = load(path)
        (entry,) = (e for e in (cache_root / "images").iterdir() if not e.name.startswith("."))
        winners.append((winner, entry.stat().st_ino))

    loser = load(path, meanwhile)
    (entry,) = (cache_root / "images").iterdir()
    assert same(loser, winners[0][0]) and entry.stat().st_ino == winners[0][1]


def test_abandoned_builds_are_swept(tmp_path: Path, tree: Tree, cache_root: Path) -> None:
    old, new = (cache_root / "images" / f"{cache.BUILDING}{name}" for name in ("old", "new"))
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (1, 1))
    load(write_tar(tmp_path / "pets.tar", tree))
    assert not old.exists() and new.exists()


def test_progress_and_small_tasks(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_folder(tmp_path / "pets", tree)
    whole = load(path)
    monkeypatch.setattr(images, "TASK_BYTES", 1)
    monkeypatch.setattr(entry, "PROGRESS_EVERY", 5)
    counts: list[int] = []
    tasks = load(write_zip(tmp_path / "pets.zip", tree), counts.append)
    assert same(whole, tasks)
    assert counts == [5, 10, 12]


def test_torch_takes_the_pixels_without_a_warning(tmp_path: Path, tree: Tree) -> None:
    data = load(write_folder(tmp_path / "pets", tree))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(data.train.pixels)
    before = data.train.images().copy()
    tensor.zero_()  # copy on write: the cache keeps its pixels
    assert np.array_equal(load(tmp_path / "pets").train.images(), before)


def test_changed_while_read(tmp_path: Path, tree: Tree) -> None:
    path = write_folder(tmp_path / "pets", tree)
    with pytest.raises(DataError, match="changed while it was read"):
        load(path, lambda count: os.utime(path / "train/cat/0.png", (1, 1)))
