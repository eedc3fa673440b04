"""Readers and cache: the same images whatever they come in, and one line for what is wrong."""

import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onecycle.datasets import cache, entry, folder, images
from onecycle.datasets import load as load_module
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.decode import Found
from onecycle.datasets.load import load
from onecycle.errors import DataError, DiskError, OnecycleError, RecipeError

DIGITS_DIGEST = "f874cff156f5b47186525666ebcb862b707ba6a1e01b133a4f7d725ea1828bf8"
Tree = dict[str, bytes]


def encoded(size: tuple[int, int] = (16, 16), seed: int = 0, mode: str = "RGB") -> bytes:
    """A PNG of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "png")
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes whose header promises `side` x `side` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.fixture
def tree() -> Tree:
    names = [f"train/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    names += [f"test/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)]
    return {name: encoded(seed=i) for i, name in enumerate(names)}


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONECYCLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)
    return tmp_path / "cache"


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


def write_folder(path: Path, tree: Tree) -> Path:
    for name, content in tree.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_tar(path: Path, tree: Tree, extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    mode = {"gz": "w:gz", "xz": "w:xz", "bz2": "w:bz2", "tar": "w"}[path.name.rsplit(".")[-1]]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info in extra:
            archive.addfile(info)
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, tree: Tree, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def refused(spec: str | Path, kind: type[OnecycleError] = DataError) -> str:
    """What `load` says when it refuses `spec`: one line, and no entry or litter in the cache."""
    with pytest.raises(kind) as caught:
        load(spec)
    images = cache.cache_folder() / "images"
    assert not images.exists() or not any(images.iterdir())
    text = str(caught.value)
    assert text and len(text.splitlines()) == 1
    return text


def same(one: Dataset, other: Dataset) -> bool:
    """Whether digest, classes, labels, names and pixels agree."""
    return (one.digest, one.classes) == (other.digest, other.classes) and all(
        np.array_equal(a.labels, b.labels)
        and a.names == b.names
        and np.array_equal(a.images(), b.images())
        for a, b in ((one.train, other.train), (one.test, other.test))
    )


# The data sets


def test_digits() -> None:
    data = load("digits")
    assert (data.name, data.classes, data.digest) == ("digits", tuple("0123456789"), DIGITS_DIGEST)
    assert (len(data.train), len(data.test), data.image_size) == (1437, 360, 32)
    assert data.train.images().dtype == np.uint8
    assert sorted(data.train.names + data.test.names) == [f"digits/{i:04d}" for i in range(1797)]
    shares = [np.bincount(split.labels) / len(split) for split in (data.train, data.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.003  # stratified
    image = data.train.images(0, 1)[0]
    assert image.min() == 0 and image.max() > 200 and (image == image[..., :1]).all()


def test_every_container_gives_the_same(tmp_path: Path, tree: Tree) -> None:
    reference = load(write_folder(tmp_path / "pets", tree))
    assert (reference.name, reference.source) == ("pets", str((tmp_path / "pets").resolve()))
    assert (len(reference.train), len(reference.test), reference.image_size) == (8, 4, 16)
    for split in (reference.train, reference.test):
        assert list(split.names) == sorted(split.names)
        for i, name in enumerate(split.names):
            assert reference.classes[split.labels[i]] == name.split("/")[1]
            expected = np.asarray(Image.open(io.BytesIO(tree[name])))
            assert np.array_equal(split.images(i, i + 1)[0], expected)
    shuffled = dict(sorted(tree.items(), key=lambda item: item[0][::-1]))
    clutter = {"README.md": b"x", "train/cat/._1.png": b"", "__MACOSX/train/cat/1.png": b""}
    below = {f"./photos/pets/{name}": content for name, content in shuffled.items()}
    for suffix in ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip"):
        write = write_zip if suffix == "zip" else write_tar
        for stem, entries in (("a", tree), ("b", shuffled), ("c", below | clutter)):
            data = load(write(tmp_path / f"{stem}.{suffix}", entries))
            assert same(data, reference) and data.name == stem
    assert same(load(write_folder(tmp_path / "d", below | clutter)), reference)


def test_digest_tells_content(tmp_path: Path, tree: Tree) -> None:
    def renamed(old: str, new: str) -> Tree:
        return {name.replace(old, new): content for name, content in tree.items()}

    swapped = tree | {"train/cat/0.png": tree["train/dog/0.png"]}
    less = {name: content for name, content in tree.items() if name != "test/cat/1.png"}
    trees = [tree, renamed("cat", "cow"), swapped, less, renamed("3.png", "9.png")]
    digests = [load(write_folder(tmp_path / str(i), t)).digest for i, t in enumerate(trees)]
    assert len(set(digests[:4])) == 4
    assert digests[4] == digests[0]  # the order is the same, and names don't count


def test_compression_by_content_not_suffix(tmp_path: Path, tree: Tree) -> None:
    plain = write_tar(tmp_path / "a.tar", tree).rename(tmp_path / "b.tar.gz")
    assert len(load(plain).train) == 8


def test_grey_palette_and_cmyk_become_rgb(tmp_path: Path, tree: Tree) -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(buffer, "jpeg")
    tree |= {
        "train/cat/0.png": encoded(mode="L"),
        "train/cat/1.png": encoded(mode="P"),
        "train/cat/2.JPG": buffer.getvalue(),
    }
    images = load(write_folder(tmp_path / "pets", tree)).train.images()
    assert images.shape == (9, 16, 16, 3)
    assert (images[0] == images[0][..., :1]).all()
    red = images[2].reshape(-1, 3).mean(axis=0)
    assert red[0] > 200 and red[1:].max() < 60


# The cache


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


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_packed_link_to_a_picture_is_refused(tmp_path: Path, tree: Tree, kind: bytes) -> None:
    link = tarfile.TarInfo("train/cat/again.png")
    link.type, link.linkname = kind, str(tmp_path / "secret.png")
    path = write_tar(tmp_path / "pets.tar", tree, (link,))
    before = everything_below(tmp_path)
    said = refused(path)
    assert everything_below(tmp_path) == before
    assert "'train/cat/again.png' is a link, not a picture: pack the files themselves" in said


def test_a_link_to_a_picture_in_a_zip_is_refused(tmp_path: Path, tree: Tree) -> None:
    path = write_zip(tmp_path / "pets.zip", tree)
    link = zipfile.ZipInfo("train/cat/again.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "0.png")
    assert "'train/cat/again.png' is a link, not a picture" in refused(path)


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


# What can't be used


def test_paths_that_are_no_data(tmp_path: Path, tree: Tree) -> None:
    assert "no such file or folder" in refused(tmp_path / "nowhere")
    with pytest.raises(DataError, match="does not exist"):
        load_module.source(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    assert "neither a folder nor an archive" in refused(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.tar")
    assert "neither a folder nor an archive" in refused(tmp_path / "pipe.tar")
    half = {name: content for name, content in tree.items() if name.startswith("test")}
    text = "no train/<class>/ images found: expected train/<class>/<image>"
    assert text in refused(write_folder(tmp_path / "only-test", half))
    assert text in refused(write_tar(tmp_path / "only-test.tar", half))
    assert text in refused(write_zip(tmp_path / "only-test.zip", half))


def test_classes_that_do_not_match(tmp_path: Path, tree: Tree) -> None:
    extra = tree | {"test/owl/0.png": encoded(), "test/emu/0.png": encoded()}
    for path in (write_folder(tmp_path / "a", extra), write_tar(tmp_path / "a.tar", extra)):
        assert "in test/ or val/ without images in train/: emu, owl:" in refused(path)
    lonely = {name: content for name, content in tree.items() if "cat" in name}
    assert "only one class (cat)" in refused(write_folder(tmp_path / "c", lonely))


def test_bad_images_are_counted_and_named(tmp_path: Path, tree: Tree) -> None:
    deep = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.int32)).save(deep, "tiff")
    postscript = io.BytesIO()  # Pillow would run Ghostscript for it
    Image.new("RGB", (16, 16)).save(postscript, "eps")
    tree |= {
        "train/cat/0.png": b"",
        "train/cat/1.png": b"no image at all",
        "train/cat/2.png": encoded()[:-300],
        "train/cat/3.png": deep.getvalue(),
        "train/dog/0.png": postscript.getvalue(),
        "train/dog/1.png": huge_png(8000),
        "train/dog/2.png": huge_png(30000),
    }
    text = refused(write_zip(tmp_path / "pets.zip", tree))
    assert "7 of 12 images can't be used" in text and text.count(".png (") == 7
    for reason in (
        "train/cat/0.png (empty file)",
        "train/cat/1.png (not an image of a known format)",
        "train/cat/2.png (image file is truncated",
        "train/cat/3.png (pixels of mode I have no known range)",
        "train/dog/0.png (not an image of a known format)",
    ):
        assert reason in text
    nothing_good = dict.fromkeys(tree, b"x")
    assert "12 of 12 images" in refused(write_folder(tmp_path / "pets", nothing_good))


@pytest.mark.parametrize("side", [8_000, 10_000, 30_000])
@pytest.mark.parametrize("filter_", ["error", "default"])
@pytest.mark.parametrize("place", ["test/cat/0.png", "train/dog/3.png"])
def test_bombs_do_not_fill_memory(
    tmp_path: Path, tree: Tree, side: int, filter_: str, place: str
) -> None:
    path = write_folder(tmp_path / "pets", tree | {place: huge_png(side)})
    tracemalloc.start()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(filter_)  # type: ignore[arg-type]
        text = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"1 of 12 images can't be used: {place} (" in text and "limit" in text
    assert peak < 16 * 2**20 and not shown


def test_the_same_name_twice(tmp_path: Path, tree: Tree) -> None:
    twice = tree | {"again/train/cat/0.png": encoded()}
    said = refused(write_tar(tmp_path / "pets.tar", twice))
    assert "'train/cat/0.png' and 'again/train/cat/0.png' both count as train/cat/0.png" in said


def test_names_that_break_lines(tmp_path: Path, tree: Tree) -> None:
    for name in ("train/cat/a\nb.png", "train/c\x1b[2Jat/0.png", "train/cat/\udcff.png"):
        path = write_tar(tmp_path / "pets.tar", tree | {name: encoded()})
        assert "unprintable characters" in refused(path)


def test_links_in_a_folder(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / "secret.png").write_bytes(encoded())
    path = write_folder(tmp_path / "pets", tree)
    (path / "train/cat/7.png").symlink_to("0.png")
    (path / "notes").symlink_to(tmp_path)
    assert len(load(path).train) == 9
    (path / "train/cat/8.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"train/cat/8.png is a link that leads outside"):
        load(path)
    (path / "train/cat/8.png").unlink()
    (path / "train/owl").symlink_to(path / "train/cat")
    with pytest.raises(DataError, match=r"train/owl is a link to a folder"):
        load(path)


def test_pipe_in_a_folder_is_no_image(tmp_path: Path, tree: Tree) -> None:
    path = write_folder(tmp_path / "pets", tree)
    os.mkfifo(path / "train/cat/7.png")
    assert len(load(path).train) == 8


def test_unreadable_image(tmp_path: Path, tree: Tree) -> None:
    path = write_folder(tmp_path / "pets", tree)
    (path / "train/cat/7.png").symlink_to("gone.png")
    assert "cannot read" in refused(path, DiskError)


# Hostile and damaged archives


def everything_below(path: Path) -> set[Path]:
    return {file for file in path.rglob("*") if "cache" not in file.parts}


@pytest.mark.parametrize("name", ["../evil.png", "train/cat/../../../evil.png", "/tmp/evil.png"])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_paths_that_lead_outside(
    tmp_path: Path, tree: Tree, name: str, write: Callable[[Path, Tree], Path]
) -> None:
    path = write(tmp_path / ("a.tar" if write is write_tar else "a.zip"), tree | {name: encoded()})
    before = everything_below(tmp_path)
    text = refused(path)
    assert f"member '{name}' leads outside" in text
    assert everything_below(tmp_path) == before and not Path("/tmp/evil.png").exists()


def test_members_that_are_no_files_are_skipped(tmp_path: Path, tree: Tree) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(seed=77))
    extra = []
    links, others = (tarfile.SYMTYPE, tarfile.LNKTYPE), (tarfile.CHRTYPE, tarfile.BLKTYPE)
    for kind in (*links, *others, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("train/cat/x.txt" if kind in links else "train/cat/x.png")
        info.type, info.linkname = kind, str(tmp_path / "secret.png")
        extra.append(info)
    reference = load(write_folder(tmp_path / "pets", tree))
    path = write_tar(tmp_path / "pets.tar", tree, tuple(extra))
    before = everything_below(tmp_path)
    assert same(load(path), reference)
    link = zipfile.ZipInfo("train/cat/x.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    zipped = write_zip(tmp_path / "pets.zip", tree)
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(link, str(tmp_path / "secret.png"))
    assert same(load(zipped), reference)
    assert everything_below(tmp_path) == before | {zipped}


def small_memory_refusal(path: Path) -> str:
    tracemalloc.start()
    text = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 2**20
    return text


def test_oversize_members(tmp_path: Path, tree: Tree) -> None:
    def header(name: str) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = 10 * 2**30
        return info.tobuf()

    for name, what in (
        ("train/cat/big.png", "train/cat/big.png has 10,737,418,240 bytes, over the limit"),
        ("notes.txt", "damaged archive"),  # skipped, and then the rest is missing
    ):
        path = tmp_path / "big.tar.gz"
        path.write_bytes(gzip.compress(header(name) + bytes(40 * 2**20), 1))
        assert what in small_memory_refusal(path)
    big = write_folder(tmp_path / "pets", tree) / "train/cat/big.png"
    with big.open("wb") as file:
        file.truncate(folder.MEMBER_LIMIT + 1)
    assert "big.png has 67,108,865 bytes, over the limit" in small_memory_refusal(tmp_path / "pets")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_do_not_fill_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 40 * 2**20
    path = tmp_path / "header.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(info.size), 1))
    assert "a header is too large" in small_memory_refusal(path)


def test_zip_that_lies_about_sizes(tmp_path: Path, tree: Tree) -> None:
    zeros = tree | {"train/cat/z.png": bytes(48 * 2**20)}
    path = write_zip(tmp_path / "pets.zip", zeros)
    size = struct.pack("<I", 48 * 2**20)
    content = path.read_bytes()
    assert content.count(size) >= 1
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    assert "damaged archive" in small_memory_refusal(path)
    path = write_zip(tmp_path / "other.zip", zeros, zipfile.ZIP_BZIP2)
    assert "neither stored nor deflated" in small_memory_refusal(path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_damaged_archives(tmp_path: Path, tree: Tree, suffix: str) -> None:
    write = write_zip if suffix == "zip" else write_tar
    path = write(tmp_path / f"pets.{suffix}", tree)
    expected = load(path).digest
    content = path.read_bytes()
    bad = tmp_path / "cache" / f"bad.{suffix}"
    end = content.rindex(b"IEND") if suffix == "tar" else len(content)
    draw = np.random.default_rng(0)
    for length in [0, 1, 512, *draw.integers(1, end, 20), end - 1]:
        bad.write_bytes(content[:length])
        with pytest.raises(DataError, match="damaged archive") as caught:
            load(bad)
        assert len(str(caught.value).splitlines()) == 1
    for place in draw.integers(0, len(content), 40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.integers(8)
        bad.write_bytes(flipped)
        try:
            data = load(bad)
        except DataError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert suffix in ("tar", "zip") or data.digest == expected
    bad.write_bytes(b"this is text" * 100)
    with pytest.raises(DataError, match="damaged archive"):
        load(bad)


def test_checksum_at_the_end_counts(tmp_path: Path, tree: Tree) -> None:
    content = write_tar(tmp_path / "pets.tar", tree).read_bytes()
    packed = bytearray(gzip.compress(content + bytes(2**20)))
    (tmp_path / "good.tar.gz").write_bytes(packed)
    packed[-8] ^= 1
    (tmp_path / "bad.tar.gz").write_bytes(packed)
    with pytest.raises(DataError, match="CRC check failed"):
        load(tmp_path / "bad.tar.gz")
    assert len(load(tmp_path / "good.tar.gz").train) == 8


# Names of data sets


def test_unknown_word() -> None:
    assert "did you mean 'cifar10'?" in refused("cifar-10")
    assert "did you mean" not in refused("qqq")
    assert "give the path in full" in refused("~nobody-of-this-name/pets")


def test_home_is_expanded(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pets", tree)
    assert load("~/pets").source == str((tmp_path / "pets").resolve())


def test_cifar10_is_found(tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def point_to(path: Path) -> None:
        monkeypatch.setenv("ONECYCLE_DATA", str(path))

    for text in ("nothing came", "does not exist", "store holds nothing named cifar10*"):
        message = refused("cifar10")
        assert text in message and "--data PATH" in message and "--data digits" in message
        point_to(tmp_path / "store")
        if text == "does not exist":
            (tmp_path / "store").mkdir()
    tree = {f"{s}/{i}/0.png": encoded(seed=i) for i in range(10) for s in ("train", "test")}
    in_cache = cache.cache_folder() / "downloads" / "cifar10.tar"
    in_cache.parent.mkdir(parents=True, exist_ok=True)
    write_tar(in_cache, tree)
    monkeypatch.delenv("ONECYCLE_DATA")
    assert load("cifar10").source == str(in_cache.resolve())
    point_to(tmp_path / "store")
    (tmp_path / "store" / "cifar10.txt").write_text("no data")
    archive = write_tar(tmp_path / "store" / "cifar10-small.tar.xz", tree)
    data = load("cifar10")
    assert (data.name, data.source) == ("cifar10-small", str(archive.resolve()))
    monkeypatch.setitem(load_module.KNOWN, data.digest, "CIFAR-10 (small)")
    assert load("cifar10").name == "CIFAR-10 (small)"
    for direct in (archive, write_folder(tmp_path / "pets", tree)):
        point_to(direct)
        assert load("cifar10").digest == data.digest


# The Dataset type


def test_mean_and_std_are_of_train_alone(tmp_path: Path, tree: Tree) -> None:
    white = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(white, "png")
    tree |= {"test/cat/0.png": white.getvalue()}
    data = load(write_folder(tmp_path / "pets", tree))
    pixels = data.train.images().reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=1e-12)
    held = data.hold_out(0.5, seed=0)
    kept = held.train.images().reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(held.mean, kept, rtol=1e-12)


def test_hold_out() -> None:
    data = load("digits")
    held = data.hold_out(0.1, seed=3)
    assert held.val is not None
    kept, out = set(held.train.names), set(held.val.names)
    assert not kept & out and kept | out == set(data.train.names)
    expected = np.rint(0.1 * np.bincount(data.train.labels))
    assert np.array_equal(np.bincount(held.val.labels), expected)
    position = {name: i for i, name in enumerate(data.train.names)}
    for split in (held.train, held.val):
        origin = [position[name] for name in split.names]
        assert np.array_equal(split.labels, data.train.labels[origin])
        assert np.array_equal(split.images(), data.train.images()[origin])
    again, other = data.hold_out(0.1, seed=3), data.hold_out(0.1, seed=4)
    assert again.val is not None and other.val is not None
    assert again.val.names == held.val.names != other.val.names
    assert same(data, load("digits")) and held.test is data.test
    for fraction in (0, 1, -0.5, 1.5, 0.0001, 0.9999):
        with pytest.raises(RecipeError, match="--val-fraction"):
            data.hold_out(fraction, seed=0)
