"""What the tests share: data and a recipe small enough to train in milliseconds."""

import io
import sys

import cifar_files
import numpy as np
import pytest
import torch
from PIL import Image
from trees import encoded

import onecycle
from onecycle import cli
from onecycle.datasets import fetch, images
from onecycle.datasets.dataset import Dataset, Split
from onecycle.machine import Machine
from onecycle.recipe import book
from onecycle.run import estimate
from onecycle.training.state import create


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Each test has a cache and a working folder of its own, one thread, and no network."""
    monkeypatch.setenv("ONECYCLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "MIRRORS", ("http://127.0.0.1:9",))
    monkeypatch.delenv("ONECYCLE_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.fixture
def cache_root(tmp_path):
    """The cache of this test."""
    return tmp_path / "cache"


@pytest.fixture
def tree():
    """Twelve pictures of two classes, by their paths in a data set."""
    names = [f"train/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    names += [f"test/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(2)]
    return {name: encoded(seed=i) for i, name in enumerate(names)}


@pytest.fixture
def looks(monkeypatch):
    """Grows by an entry for each file that is looked at."""
    seen = []
    real = images.look

    def counting(content, size=None, *, header_only=False):
        seen.append("header" if header_only else size)
        return real(content, size, header_only=header_only)

    monkeypatch.setattr(images, "look", counting)
    return seen


@pytest.fixture(scope="session")
def ten():
    """The python and the binary files of a small CIFAR-10."""
    return cifar_files.cifar10()


@pytest.fixture(scope="session")
def hundred():
    """The python and the binary files of a small CIFAR-100."""
    return cifar_files.cifar100()


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs the command line in this process, with `stdin`: exit code, stdout, stderr."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["onecycle", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def machine():
    return Machine("cpu", "fp32", 1, "for the tests")


@pytest.fixture(scope="session")
def make_data():
    """A function that makes random images; the rows are a shuffled part of the pixels."""

    def make(size=16, classes=3, train=96, test=32, seed=0):
        draw = np.random.default_rng(seed)

        def split(count):
            pixels = draw.integers(0, 256, (count + 5, size, size, 3), dtype=np.uint8)
            pixels[..., 1] //= 2  # so that the channels have statistics of their own
            rows = draw.permutation(count + 5)[:count]
            return Split(pixels, rows, np.arange(count) % classes)

        names = tuple(f"class{i}" for i in range(classes))
        return Dataset("tiny", names, split(train), split(test), digest=f"random{seed}")

    return make


@pytest.fixture(scope="session")
def tiny(make_data):
    return make_data()


@pytest.fixture(scope="session")
def make_recipe():
    """A function that makes a 4 channels wide recipe of 3 epochs, with `key=value` changes."""
    small = ["model.width=4", "epochs=3", "schedule.peak_epoch=1", "batch_size=32", "ghost_batch=8"]

    def make(*changes):
        return book.change(book.find("davidnet"), [*small, *changes])

    return make


@pytest.fixture
def state(tiny, make_recipe, machine):
    """What the tiny recipe trains, before its first step."""
    return create(make_recipe(), tiny, machine, seed=0)


@pytest.fixture(scope="session")
def coloured(tmp_path_factory):
    """A function that makes a folder of 16-pixel images, a noisy colour for each class."""

    def make(classes=("cat", "$dog$ & co", "naïve"), train=30, test=10, size=16, seed=0, tint=25):
        draw = np.random.default_rng(seed)
        folder = tmp_path_factory.mktemp("pictures") / "coloured"
        for split, count in (("train", train), ("test", test)):
            for label, name in enumerate(classes):
                (folder / split / name).mkdir(parents=True)
                for i in range(count):
                    noise = draw.integers(0, 200, (size, size, 3))
                    noise[..., label % 3] += tint
                    image = Image.fromarray(noise.astype(np.uint8))
                    image.save(folder / split / name / f"{i:02d}.png")
        return folder

    return make


@pytest.fixture(scope="session")
def judged(coloured, tmp_path_factory):
    """A finished run with a validation part, on `coloured` images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONECYCLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(estimate, "ENOUGH_SECONDS", 0)
        settings = ["model.width=4", "batch_size=24", "ghost_batch=0", "schedule.peak_epoch=1"]
        yield onecycle.train(
            data=coloured(),
            epochs=3,
            settings=settings,
            val_fraction=0.2,
            precision="fp32",
            threads=1,
            out=tmp_path_factory.mktemp("runs") / "run",
            quiet=True,
        )


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A finished run on the digits, narrow and short, with a validation part."""
    return onecycle.train(
        "digits",
        epochs=2,
        settings={"model.width": 4, "schedule.peak_epoch": 1},
        val_fraction=0.1,
        precision="fp32",
        threads=1,
        out=tmp_path_factory.mktemp("runs") / "digits",
        quiet=True,
    )
