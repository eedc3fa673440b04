"""Hostile and damaged archives."""

import gzip
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trees import Tree, encoded, refused, same, write_folder, write_tar, write_zip

from onecycle.datasets import folder
from onecycle.datasets.load import load
from onecycle.errors import DataError


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
