"""CIFAR files that are hostile or damaged: nothing runs, and one line for each."""

import os
import pickle
import struct
import tarfile
import time
import tracemalloc

import cifar_files
import numpy as np
import pytest
from cifar_files import refused

from onecycle.datasets import cifar_form, unpickle
from onecycle.datasets.load import load
from onecycle.errors import DataError

# Hostile files


class Calls:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def gadgets(file):
    """Pickles of which each would make `file` if it were loaded."""
    command = f"touch {file}"
    code = f"open({str(file)!r}, 'w')"
    batch = pickle.loads(cifar_files.cifar10()[0]["test_batch"], encoding="latin1")
    return {
        "system": pickle.dumps(Calls(os.system, command), 2),
        "old system": b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.",
        "eval": pickle.dumps(Calls(eval, code), 4),
        "nested": pickle.dumps(batch | {"data": [Calls(exec, code)]}, 2),
        "as a key": pickle.dumps(batch | {"labels": {"data": {1: Calls(os.system, command)}}}, 4),
        "instance": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        # numpy's own ways to run something, and a path through an allowed name
        "numpy": pickle.dumps(Calls(np.testing.runstring, code, {}), 2),
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x1andarray.__class__.__base__\x93.",
        "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR.",
        "called array": b"cnumpy\nndarray\n(K\x01tR.",
        "other type": b"cnumpy\ndtype\n(S'O8'\ntR.",
        "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
        "persistent": b"Pos.system\n.",
    }


def test_gadgets_are_inert(tmp_path, ten):
    made = tmp_path / "made"
    payloads = gadgets(made)
    os_system = payloads["old system"]
    pickle.loads(os_system)
    assert made.exists(), "these payloads do work"
    made.unlink()
    for i, payload in enumerate(payloads.values()):
        for name in ("batches.meta", "data_batch_3", "test_batch"):
            for path in (
                cifar_files.write_folder(tmp_path / f"{i}-{name}", ten[0] | {name: payload}),
                cifar_files.write_archive(tmp_path / f"{i}-{name}.tar", ten[0] | {name: payload}),
            ):
                text = refused(path)
                assert f"{name} can't be used (" in text
        with pytest.raises(Exception, match=r".") as caught:
            unpickle.read(payload)
        assert isinstance(caught.value, ValueError), payload
    assert not made.exists()
    with pytest.raises(ValueError, match=r"it asks for 'posix.system', which no batch needs"):
        unpickle.read(payloads["system"])


def batch_with(array, labels=b"](K\x00K\x00e"):
    """A pickled batch with these pieces of pickle in it."""
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels" + labels + b"u."


def array_of(shape, content=b""):
    byte = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNK\x00K\x00K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    length = struct.pack("<i", len(content))
    return empty + b"(K\x01" + shape + byte + b"\x89T" + length + content + b"tb"


def test_pickles_that_fill_memory_or_time(tmp_path, ten):
    huge = struct.pack("<i", 2**31 - 1)
    sound = batch_with(array_of(b"K\x02M\x00\x0c\x86", bytes(6144)))
    form = cifar_form.FORMS[0]
    assert cifar_form.batch(form, form.chosen("fine"), sound)[0].shape == (2, 3072)
    bombs = {
        "memo": b"\x80\x02N" + b"r\xff\xff\xff\xff" + b".",
        "shape": batch_with(array_of(b"J" + huge + b"J" + huge + b"\x86")),
        "negative": batch_with(array_of(b"J\xff\xff\xff\xffM\x00\x0c\x86", bytes(6144))),
        "many": b"\x80\x02(" + b"]" * 8_000_000 + b"l.",
        "promised": b"\x80\x02T" + huge + b"x.",
        "framed": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
        # A key whose hash takes 2**60 steps.
        "tuples": b"\x80\x02}K\x01"
        + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
        + b"K\x01s.",
        "digits": b"I" + b"9" * 10_000_000 + b"\n.",
    }
    for name, bomb in bombs.items():
        path = cifar_files.write_folder(tmp_path / name, ten[0] | {"data_batch_1": bomb})
        start = time.perf_counter()
        tracemalloc.start()
        text = refused(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "data_batch_1 can't be used" in text
        assert peak < 200 * 2**20, name
        assert time.perf_counter() - start < 60, name


def test_archives_that_lead_outside_or_are_too_large(tmp_path, ten):
    links = tmp_path / "links.tar"
    with tarfile.open(links, "w") as archive:
        for name in ten[0]:
            for prefix, kind in (
                ("a", tarfile.SYMTYPE),
                ("b", tarfile.LNKTYPE),
                ("c", tarfile.CHRTYPE),
            ):
                info = tarfile.TarInfo(f"{prefix}/{name}")
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
    assert "no images found" in refused(links)
    for inside in ("..", "a/../..", "/tmp"):
        path = cifar_files.write_archive(tmp_path / "out.tar", ten[0], inside)
        before = set(tmp_path.rglob("*"))
        assert "no images found" in refused(path)
        assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} <= before
    for name, limit in (("data_batch_1", 32_000_000), ("batches.meta", 2**20)):
        path = tmp_path / f"{name}.tar"
        with tarfile.open(cifar_files.write_archive(path, ten[0]), "a") as archive:
            info = tarfile.TarInfo(name)
            info.size = 10 * 2**30
            archive.fileobj.write(info.tobuf())
        assert "is there twice" in refused(path)
        files = {n: c for n, c in ten[0].items() if n != name} | {name: bytes(limit + 1)}
        expected = f"{name} has {limit + 1:,} bytes, over the limit of {limit:,}"
        assert expected in refused(cifar_files.write_archive(tmp_path / "b.tar.gz", files))
        assert expected in refused(cifar_files.write_folder(tmp_path / f"f-{name}", files))


# Damaged files


def changed(files, name, **parts):
    """`files` with parts of one python batch replaced; None takes a part out."""
    batch = pickle.loads(files[name], encoding="latin1") | parts
    batch = {key: part for key, part in batch.items() if part is not None}
    return files | {name: cifar_files.python3(4)(batch)}


def zeros(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("data_batch_2", {"data": None}, "data_batch_2 can't be used (it has no 'data')"),
        ("data_batch_2", {"labels": None}, "it has no 'labels'"),
        ("data_batch_2", {"data": zeros(4, 3071)}, "pixels of shape (4, 3071) for 4 labels"),
        ("data_batch_2", {"data": zeros(3, 3072)}, "pixels of shape (3, 3072) for 4 labels"),
        ("data_batch_2", {"data": zeros(4, 3, 32, 32)}, "pixels of shape (4, 3, 32, 32)"),
        ("data_batch_2", {"data": zeros(4, 3072, dtype=np.float32)}, "not of type uint8"),
        ("data_batch_2", {"data": zeros(4, 3072, dtype=object)}, "not of type uint8"),
        ("data_batch_2", {"data": [[0] * 3072] * 4}, "the pixels are no array"),
        ("data_batch_2", {"data": zeros(0, 3072), "labels": []}, "0 images, not 1 to 10,000"),
        ("data_batch_2", {"labels": [0, 1, 2, 10]}, "labels from 0 to 10 for 10 classes"),
        ("data_batch_2", {"labels": [0, 1, 2, -1]}, "labels from -1 to 2"),
        ("data_batch_2", {"labels": [0, 1, 2, 2**70]}, "data_batch_2 can't be used"),
        ("data_batch_2", {"labels": [0, 1, 2, True]}, "no list of whole numbers"),
        ("data_batch_2", {"labels": [0, 1, 2, "3"]}, "no list of whole numbers"),
        ("data_batch_2", {"labels": 4}, "no list of whole numbers"),
        ("data_batch_2", {"labels": [0, 1, 2]}, "for 3 labels"),
        ("batches.meta", {"label_names": None}, "it has no 'label_names'"),
        ("batches.meta", {"label_names": list("abc")}, "3 different class names, not 10"),
        ("batches.meta", {"label_names": ["a"] * 10}, "1 different class names, not 10"),
        ("batches.meta", {"label_names": [*"abcdefghi", 7]}, "no list of texts"),
        ("batches.meta", {"label_names": [*"abcdefghi", "x\ny"]}, "empty or unprintable"),
        ("batches.meta", {"label_names": [*"abcdefghi", ""]}, "empty or unprintable"),
        ("batches.meta", {"label_names": "abcdefghij"}, "no list of texts"),
    ],
)
def test_python_files_with_wrong_content(tmp_path, ten, name, parts, said):
    path = cifar_files.write_folder(tmp_path / "a", changed(ten[0], name, **parts))
    assert said in refused(path)


def test_binary_files_with_wrong_content(tmp_path, ten, hundred):
    batch, names = ten[1]["data_batch_2.bin"], "batches.meta.txt"
    for i, (name, content, said) in enumerate(
        [
            ("data_batch_2.bin", batch[:-1], "12,291 bytes are no multiple of the 3,073"),
            ("data_batch_2.bin", b"", "0 images, not 1 to 10,000"),
            ("data_batch_2.bin", b"\x0a" + batch[1:], "to 10 for 10 classes"),
            ("data_batch_2.bin", batch[:3073] * 10_001, "10,001 images, not 1 to 10,000"),
            (names, b"cat\ndog\n", "2 different class names, not 10"),
            (names, ten[1][names].replace(b"cat", b"c\x00t"), "empty or unprintable"),
            (names, ten[1][names].replace(b"cat", b"\xff"), "can't decode byte 0xff"),
        ]
    ):
        path = cifar_files.write_folder(tmp_path / str(i), ten[1] | {name: content})
        assert said in refused(path)
    wrong = hundred[1] | {"test.bin": b"\x00\x64" + hundred[1]["test.bin"][2:]}
    assert "to 100 for 100 classes" in refused(cifar_files.write_folder(tmp_path / "h", wrong))


def test_missing_files_are_named(tmp_path, ten, hundred):
    for i, (files, name) in enumerate(
        [(f, n) for f in (*ten, hundred[0]) for n in f] + [(hundred[1], "fine_label_names.txt")]
    ):
        less = {other: content for other, content in files.items() if other != name}
        for path in (
            cifar_files.write_folder(tmp_path / f"{i}", less),
            cifar_files.write_archive(tmp_path / f"{i}.tar", less),
        ):
            assert f"{name} missing: get the original cifar-10" in refused(path)


def test_links_and_pipes_in_place_of_batches(tmp_path, ten):
    path = cifar_files.write_folder(tmp_path / "a", ten[0])
    (path / "data_batch_1").rename(tmp_path / "kept-elsewhere")
    (path / "data_batch_1").symlink_to(tmp_path / "kept-elsewhere")
    assert len(load(path).train) == 20
    (path / "test_batch").unlink()
    os.mkfifo(path / "test_batch")
    with pytest.raises(DataError, match="test_batch missing"):
        load(path)


@pytest.mark.parametrize("form", cifar_form.FORMS, ids=lambda form: form.folder)
def test_fuzz(form):
    assert 0 < cifar_files.fuzz(form, 76) < 76


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_fuzz_of_whole_archives(tmp_path, suffix):
    assert cifar_files.fuzz_archives(tmp_path, suffix, 60) < 60
