"""Small data sets of pictures: in folders and archives, accepted and refused."""

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onecycle.datasets import cache
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load
from onecycle.errors import DataError, OnecycleError

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


def tree(
    size: tuple[int, int] = (20, 20),
    classes: tuple[str, ...] = ("cat", "dog"),
    train: int = 3,
    test: int = 2,
) -> Tree:
    """Files of noise by their names, all of one size."""
    counts = (("train", train), ("test", test))
    names = [f"{s}/{name}/{i}.png" for s, count in counts for name in classes for i in range(count)]
    return {name: encoded(size, seed=i) for i, name in enumerate(names)}


def write(path: Path, tree: Tree) -> Path:
    """`tree` as what the suffix of `path` says, or as a folder."""
    match path.suffix:
        case ".zip":
            return write_zip(path, tree)
        case ".tar":
            return write_tar(path, tree)
    return write_folder(path, tree)


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
