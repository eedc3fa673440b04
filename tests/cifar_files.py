"""CIFAR archives made by the tests: the published forms, byte for byte where that is known."""

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import trees
import watching

from onecycle.datasets import cifar, load
from onecycle.errors import OnecycleError

TEN_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
FINE_NAMES = """\
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm"""
COARSE_NAMES = """aquatic_mammals fish flowers food_containers fruit_and_vegetables
household_electrical_devices household_furniture insects large_carnivores
large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
vehicles_2"""
CIFAR10, FINE, COARSE = (names.split() for names in (TEN_NAMES, FINE_NAMES, COARSE_NAMES))
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


def python2(value):
    """`value` as Python 2's cPickle wrote it with protocol 2: the way of the published files."""
    memo = 0

    def put():
        nonlocal memo
        memo += 1
        return b"q" + bytes([memo]) if memo < 256 else b"r" + struct.pack("<I", memo)

    def number(n):
        if 0 <= n < 256:
            return b"K" + bytes([n])
        return b"M" + struct.pack("<H", n) if 0 <= n < 65536 else b"J" + struct.pack("<i", n)

    def write(item):
        if isinstance(item, bool):
            return b"\x88" if item else b"\x89"
        if isinstance(item, int):
            return number(item)
        if isinstance(item, str):
            item = item.encode("latin-1")
        if isinstance(item, bytes):
            short = len(item) < 256
            head = b"U" + bytes([len(item)]) if short else b"T" + struct.pack("<i", len(item))
            return head + item + put()
        if isinstance(item, list):
            out = b"]" + put()
            for start in range(0, len(item), 1000):
                out += b"(" + b"".join(map(write, item[start : start + 1000])) + b"e"
            return out
        if isinstance(item, dict):
            out = b"}" + put() + b"("
            for key, content in item.items():
                out += write(key)
                out += write(content)
            return out + b"u"
        return array(item)

    def array(item):
        rows, columns = item.shape
        out = b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put()
        out += b"K\x00\x85" + put() + write("b") + b"\x87" + put() + b"R" + put()
        out += b"(K\x01" + number(rows) + number(columns) + b"\x86" + put()
        out += b"cnumpy\ndtype\n" + put() + write("u1") + b"K\x00K\x01\x87" + put() + b"R" + put()
        out += (
            b"(K\x03" + write("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t" + put() + b"b"
        )
        fortran = bool(item.flags.fnc)
        content = write(item.tobytes("F" if fortran else "C"))
        return out + write(fortran) + content + b"t" + put() + b"b"

    return b"\x80\x02" + write(value) + b"."


def python3(protocol):
    """A function that pickles as today's Python does with this protocol."""
    return lambda value: pickle.dumps(value, protocol)


def images(count, classes, seed):
    """Random pixels (N, 3072) and labels in which each class occurs."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % classes)
    return draw.integers(0, 256, (count, 3072), np.uint8), labels.tolist()


def cifar10(batch=4, write=python2):
    """The files of a small CIFAR-10: python and binary."""
    pixels, labels = images(5 * batch, 10, seed=1)
    parts = {
        name: (pixels[i * batch : (i + 1) * batch], labels[i * batch : (i + 1) * batch])
        for i, name in enumerate(BATCHES)
    }
    parts["test_batch"] = images(10, 10, seed=2)
    return cifar10_files(parts, write)


def cifar10_files(parts, write=python2):
    """The files of CIFAR-10 with these pixels and labels by batch: python and binary."""
    python = {
        name: write(
            {
                "batch_label": f"some batch: {name}",
                "labels": labels,
                "data": pixels,
                "filenames": [f"picture_{i:06d}.png" for i in range(len(labels))],
            }
        )
        for name, (pixels, labels) in parts.items()
    }
    meta = {"num_cases_per_batch": 10000, "label_names": CIFAR10, "num_vis": 3072}
    binary = {
        f"{name}.bin": np.hstack([np.array(labels, np.uint8)[:, None], pixels]).tobytes()
        for name, (pixels, labels) in parts.items()
    }
    text = "".join(f"{name}\n" for name in CIFAR10) + "\n"
    return python | {"batches.meta": write(meta)}, binary | {"batches.meta.txt": text.encode()}


def cifar100(write=python2):
    """The files of a small CIFAR-100: python and binary. Coarse label: the fine one's tens / 5."""
    python, binary = {}, {}
    for name, count, seed in (("train", 120, 3), ("test", 100, 4)):
        pixels, fine = images(count, 100, seed)
        coarse = [label // 5 for label in fine]
        python[name] = write(
            {"data": pixels, "fine_labels": fine, "coarse_labels": coarse, "filenames": ["x"]}
        )
        columns = np.array([coarse, fine], np.uint8).T
        binary[f"{name}.bin"] = np.hstack([columns, pixels]).tobytes()
    python["meta"] = write({"fine_label_names": FINE, "coarse_label_names": COARSE})
    for name, classes in (("fine", FINE), ("coarse", COARSE)):
        binary[f"{name}_label_names.txt"] = "\n".join(classes).encode()
    return python, binary


def write_folder(path, files):
    """`files` in the new folder `path`."""
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def write_archive(path, files, inside=""):
    """`files` in an archive at `path`, in its folder `inside`."""
    names = {f"{inside}/{name}" if inside else name: content for name, content in files.items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in names.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refused(path):
    """What `load` says when it refuses `path`: one line that names it, and nothing in the cache."""
    text = trees.refused(path)
    assert str(path) in text
    return text


def mutations(content, draw, count):
    """Copies of `content` with bits flipped, a byte written over, or a part cut out or doubled."""
    for _ in range(count):
        damaged = bytearray(content)
        start, end = sorted(draw.integers(0, len(content), 2))
        if draw.random() < 0.5:  # near the beginning, where most of the structure is
            start = draw.integers(min(300, len(content)))
            end = min(len(content), start + draw.integers(1, 40))
        match draw.integers(4):
            case 0:
                for place in draw.integers(start, max(start + 1, end), draw.integers(1, 6)):
                    damaged[place] ^= 1 << draw.integers(8)
            case 1:
                damaged[start] = draw.integers(256)
            case 2:
                del damaged[start:end]
            case _:
                damaged[start:start] = damaged[start:end]
        yield bytes(damaged)


def fuzz(form, count, seed=0):
    """How many of `count` mutated files of `form` are taken; what isn't refused properly raises.

    Half of them are batches and half the files with the classes' names.
    """
    made = cifar10() if form.data == "cifar10" else cifar100()
    files = made[1 if form.label_bytes else 0]
    draw = np.random.default_rng(seed)
    taken = 0
    for name in (form.test, form.chosen("fine").names):
        for damaged in mutations(files[name], draw, count // 2):
            contents = (item for item in [(name, damaged)])
            try:
                for _ in cifar._images(Path("fuzzed"), form, "fine", contents):
                    pass
                taken += 1
            except OnecycleError as error:
                assert len(str(error).splitlines()) == 1
    return taken


def fuzz_archives(folder, suffix, count, seed=0):
    """How many of `count` mutated archives are taken; what isn't refused properly raises.

    All of the archive is mutated: its headers, its compressed parts and what is in them.
    """
    content = write_archive(folder / f"a.{suffix}", cifar10()[0], "x").read_bytes()
    path, taken = folder / f"b.{suffix}", 0
    for damaged in mutations(content, np.random.default_rng(seed), count):
        path.write_bytes(damaged)
        with watching.acts() as seen:
            try:
                for _ in load.source(path).read():
                    pass
                taken += 1
            except OnecycleError as error:
                assert len(str(error).splitlines()) == 1
        assert not seen, seen
    return taken
