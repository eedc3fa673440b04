"""A full-size archive in the published python form, and the readers' long fuzz.

`ONECYCLE_DATA=<CIFAR-10 as images> pytest tests/acceptance/test_cifar_archive.py -s`
"""

import json
import os
import subprocess
import sys
import time

import cifar_files
import pytest

from onecycle.datasets.cifar_form import FORMS
from onecycle.datasets.load import load

MUTATIONS = 100_000
TIMED_LOAD = """
import json, re, sys, time
from pathlib import Path
from onecycle.datasets.load import load
start = time.perf_counter()
data = load(sys.argv[1])
result = {
    "seconds": time.perf_counter() - start,
    # On Linux; getrusage would count the memory of the parent before its fork too.
    "peak": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024,
    "digest": data.digest,
    "images": [len(data.train), len(data.test)],
}
print(json.dumps(result))
"""


def timed_load(path):
    done = subprocess.run(
        [sys.executable, "-c", TIMED_LOAD, path], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def test_a_full_size_archive(tmp_path):
    assert "ONECYCLE_DATA" in os.environ, "set ONECYCLE_DATA to CIFAR-10's folder or archive"
    data = load("cifar10")
    pixels = data.train.images().transpose(0, 3, 1, 2).reshape(-1, 3072)
    parts = {
        name: (pixels[i : i + 10_000], data.train.labels[i : i + 10_000].tolist())
        for i, name in zip(range(0, 50_000, 10_000), cifar_files.BATCHES, strict=True)
    }
    test = data.test.images().transpose(0, 3, 1, 2).reshape(-1, 3072)
    parts["test_batch"] = (test, data.test.labels.tolist())
    for files, folder in zip(
        cifar_files.cifar10_files(parts),
        ("cifar-10-batches-py", "cifar-10-batches-bin"),
        strict=True,
    ):
        # The published archive has its batches in an order like this one.
        mixed = dict(sorted(files.items(), key=lambda item: item[0][::-1], reverse=True))
        path = cifar_files.write_archive(tmp_path / f"{folder}.tar.gz", mixed, folder)
        first, second = timed_load(path), timed_load(path)
        print(
            f"{folder}.tar.gz, {path.stat().st_size:,} bytes: read in {first['seconds']:.1f} s "
            f"with {first['peak'] / 1e6:.0f} MB at most, then in {second['seconds']:.2f} s"
        )
        assert first["digest"] == second["digest"] == data.digest
        assert first["images"] == [50_000, 10_000]
        assert first["seconds"] < 60 and second["seconds"] < 3
        assert first["peak"] < 1e9


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.folder)
def test_damaged_files_are_refused_and_nothing_else_happens(form, record_property):
    start = time.perf_counter()
    taken = cifar_files.fuzz(form, MUTATIONS, seed=1)
    print(f"{form.folder}: {MUTATIONS - taken:,} of {MUTATIONS:,} refused, the others still sound")
    print(f"{time.perf_counter() - start:.0f} s")
    record_property("promise", f"fuzz of the CIFAR readers: {form.folder}")
    record_property("mutated inputs", MUTATIONS)
    record_property("still sound", taken)
    assert 0 < taken < MUTATIONS
