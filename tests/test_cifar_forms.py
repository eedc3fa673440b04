"""CIFAR as published: the same data set from each form, found by name and read once."""

import hashlib
import os
import pickle

import cifar_files
import numpy as np
import pytest
from cifar_files import refused
from trees import same

from onecycle.datasets import cache, cifar
from onecycle.datasets import load as load_module
from onecycle.datasets.load import load
from onecycle.errors import DataError


@pytest.fixture(autouse=True)
def no_data_of_the_user(monkeypatch):
    monkeypatch.delenv("ONECYCLE_DATA", raising=False)


# Each form


def test_the_files_of_the_tests_are_like_the_published_ones():
    meta = {"num_cases_per_batch": 10000, "label_names": cifar_files.CIFAR10, "num_vis": 3072}
    found = hashlib.md5(cifar_files.python2(meta)).hexdigest()
    assert found == "5ff9c542aee3614f3951f8cda6e48888"  # as torchvision and others list them
    found = hashlib.md5(cifar_files.cifar100()[0]["meta"]).hexdigest()
    assert found == "7973b15100ade9c7d40fb424638fde48"


def test_pixels_labels_and_order_are_those_of_the_batches(tmp_path, ten):
    path = cifar_files.write_folder(tmp_path / "cifar-10-batches-py", ten[0])
    data = load(path)
    assert data.classes == tuple(cifar_files.CIFAR10)
    assert (data.name, data.source) == ("cifar-10-batches-py", str(path.resolve()))
    batches = [pickle.loads(ten[0][name], encoding="latin1") for name in cifar_files.BATCHES]
    pixels = np.vstack([batch["data"] for batch in batches])
    channels_first = data.train.images().transpose(0, 3, 1, 2)
    assert np.array_equal(channels_first.reshape(-1, 3072), pixels)
    assert data.train.labels.tolist() == [label for batch in batches for label in batch["labels"]]
    assert data.train.names == tuple(f"train/{i:05d}" for i in range(20))
    assert data.test.names == tuple(f"test/{i:05d}" for i in range(10))


def test_each_form_of_cifar10_gives_the_same(tmp_path, ten):
    reference = load(cifar_files.write_folder(tmp_path / "x" / "any-name", ten[0]))
    for folder, files in zip(("cifar-10-batches-py", "cifar-10-batches-bin"), ten, strict=True):
        clutter = files | {"readme.html": b"<p>", "._data_batch_1": b"x", "more.txt": b""}
        cifar_files.write_folder(tmp_path / "parents" / folder, clutter)
        assert same(load(tmp_path / "parents" / folder), reference)
        assert same(load(tmp_path / "parents"), reference)  # python's, where both are
        mixed = dict(sorted(clutter.items(), key=lambda item: item[0][::-1]))
        for suffix in ("tar", "tar.gz", "zip"):
            for i, inside in enumerate((folder, f"./{folder}", "", "some/where")):
                path = tmp_path / f"{folder}-{i}.{suffix}"
                data = load(cifar_files.write_archive(path, mixed, inside))
                assert same(data, reference) and data.name == f"{folder}-{i}"


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_each_form_of_cifar100_gives_the_same(tmp_path, monkeypatch, hundred, labels):
    spec = "cifar100" if labels == "fine" else "cifar100-coarse"
    found = []
    for folder, files in zip(("cifar-100-python", "cifar-100-binary"), hundred, strict=True):
        for path in (
            cifar_files.write_folder(tmp_path / folder, files),
            cifar_files.write_archive(tmp_path / f"{folder}.tar.gz", files, folder),
        ):
            monkeypatch.setenv("ONECYCLE_DATA", str(path))
            found.append(load(spec))
            assert found[-1].source == (spec if labels == "coarse" else str(path.resolve()))
            assert same(load(found[-1].source), found[-1])
    assert all(same(data, found[0]) for data in found)
    names = cifar_files.FINE if labels == "fine" else cifar_files.COARSE
    assert found[0].classes == tuple(names)
    batch = pickle.loads(hundred[0]["train"], encoding="latin1")
    assert found[0].train.labels.tolist() == batch[f"{labels}_labels"]


@pytest.mark.parametrize("write", [*map(cifar_files.python3, (2, 3, 4))], ids=["2", "3", "4"])
def test_batches_that_todays_python_wrote(tmp_path, ten, write):
    reference = load(cifar_files.write_folder(tmp_path / "one", ten[0]))
    assert same(
        load(cifar_files.write_folder(tmp_path / "two", cifar_files.cifar10(4, write)[0])),
        reference,
    )


def test_columns_first(tmp_path, ten):
    batch = pickle.loads(ten[0]["test_batch"], encoding="latin1")
    batch["data"] = np.asfortranarray(batch["data"])
    changed = ten[0] | {"test_batch": cifar_files.python2(batch)}
    assert changed["test_batch"] != ten[0]["test_batch"]
    reference = load(cifar_files.write_folder(tmp_path / "one", ten[0]))
    assert same(load(cifar_files.write_folder(tmp_path / "two", changed)), reference)


def test_classes_keep_the_order_of_their_file(tmp_path, ten):
    reverse = cifar_files.CIFAR10[::-1]
    for i, (name, content) in enumerate(
        (
            ("batches.meta", cifar_files.python2({"label_names": reverse})),
            ("batches.meta.txt", "\r\n".join(reverse).encode()),
        )
    ):
        data = load(cifar_files.write_folder(tmp_path / name, ten[i] | {name: content}))
        assert data.classes == tuple(reverse)


# The cache and the names


def test_reads_once(tmp_path, monkeypatch, ten):
    paths = [
        cifar_files.write_folder(tmp_path / "folder", ten[0]),
        cifar_files.write_archive(tmp_path / "packed.tar.gz", ten[0], "x"),
    ]
    first = [load(path) for path in paths]
    assert isinstance(first[0].train.pixels, np.memmap)
    for module, name in ((cache, "sha256_file"), (cifar, "find_packed"), (cifar, "batch")):
        monkeypatch.setattr(module, name, None)
    assert all(same(load(path), data) for path, data in zip(paths, first, strict=True))


def test_only_the_published_archive_has_the_name(tmp_path, monkeypatch, ten, hundred):
    path = cifar_files.write_archive(tmp_path / "a.tar.gz", ten[0], "cifar-10-batches-py")
    assert load(path).name == "a"
    for files, spec, name in (
        (ten, "cifar10", "CIFAR-10"),
        (hundred, "cifar100", "CIFAR-100"),
        (hundred, "cifar100-coarse", "CIFAR-100 (coarse)"),
    ):
        path = cifar_files.write_archive(tmp_path / f"{spec}.tar", files[1], "b")
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(cifar.NAMES, md5, name.split()[0])
        monkeypatch.setenv("ONECYCLE_DATA", str(path))
        assert load(spec).name == name
        assert load(path.rename(tmp_path / f"other-{spec}.tar")).name == name.split()[0]


def test_found_by_name_beside_others(tmp_path, monkeypatch, ten, hundred):
    monkeypatch.setenv("ONECYCLE_DATA", str(tmp_path / "data"))
    cifar_files.write_folder(tmp_path / "data" / "cifar-100-python", hundred[0])
    with pytest.raises(DataError, match=r"holds nothing named cifar10\*"):
        load("cifar10")
    cifar_files.write_folder(tmp_path / "data" / "cifar-10-batches-bin", ten[1])
    assert [len(load(name).classes) for name in load_module.CLASSES] == [10, 100, 20]
    with pytest.raises(
        DataError, match="holds cifar-10-batches-bin and cifar-100-python: name one"
    ):
        load(tmp_path / "data")
    monkeypatch.setenv("ONECYCLE_DATA", str(tmp_path / "data" / "cifar-10-batches-bin"))
    with pytest.raises(DataError, match=r"holds nothing named cifar100\*"):
        load("cifar100")
    path = cifar_files.write_archive(tmp_path / "data" / "ten.tar", ten[1])
    monkeypatch.setenv("ONECYCLE_DATA", str(path))
    with pytest.raises(DataError, match=r"cifar100: .*ten.tar has 10 classes, not 100"):
        load("cifar100")
    monkeypatch.delenv("ONECYCLE_DATA")
    downloads = cache.cache_folder() / "downloads"
    downloads.mkdir(parents=True)
    for name, files in (("cifar-10-python.tar.gz", ten), ("cifar-100-python.tar.gz", hundred)):
        cifar_files.write_archive(downloads / name, files[0], "x")
    assert [len(load(name).classes) for name in load_module.CLASSES] == [10, 100, 20]


def test_what_was_read_is_what_was_hashed(tmp_path, monkeypatch, ten):
    other = cifar_files.cifar10(4)[0]["data_batch_1"].replace(b"picture", b"another")
    real = cache.sha256_file

    def swapped_after(path):
        digest, times = real(path), path.stat()
        changed = {
            "data_batch_1": other,
            "a.tar": path.read_bytes().replace(b"picture", b"another"),
        }
        if path.name in changed:
            path.write_bytes(changed[path.name])
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            assert path.stat().st_size == times.st_size
        return digest

    monkeypatch.setattr(cache, "sha256_file", swapped_after)
    assert "changed while it was read" in refused(cifar_files.write_folder(tmp_path / "a", ten[0]))
    path = cifar_files.write_archive(tmp_path / "a.tar", ten[0])
    assert "changed while it was read" in refused(path)
