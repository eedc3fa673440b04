"""Wrong labels put into CIFAR-10 as images are found again; an hour on one slow core.

`ONECYCLE_DATA=<CIFAR-10 as images, packed> pytest tests/acceptance/test_label_errors.py -s`
With `ONECYCLE_RESULTS=results` the figures are kept in `results/label_errors/cifar10.json`.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np

from onecycle import files
from onecycle.datasets.folder import pictures

WRONG, NAMED, ENOUGH = 500, 2500, 400
SHORT = ["--set", "model.width=16", "--epochs", "3"]


def with_wrong_labels(source, target, seed=0):
    """Pack the images at `source` anew, 500 training images in another class; these names."""
    images = list(pictures(source).read())
    train = [i for i, (place, _) in enumerate(images) if place.part == "train"]
    classes = sorted({place.class_name for place, _ in images})
    draw = np.random.default_rng(seed)
    moved = set(draw.choice(train, WRONG, replace=False).tolist())
    names = set()
    with tarfile.open(target, "w") as packed:
        for i, (place, content) in enumerate(images):
            name = place.name
            if i in moved:
                other = draw.choice([c for c in classes if c != place.class_name])
                name = f"train/{other}/moved-{i}{Path(place.name).suffix}"
                names.add(name)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return names


def onecycle(*arguments):
    command = [sys.executable, "-m", "onecycle", *arguments, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_400_of_500_wrong_labels_are_among_the_first_2500(tmp_path, monkeypatch):
    assert "ONECYCLE_DATA" in os.environ, "set ONECYCLE_DATA to the archive of CIFAR-10's images"
    results = Path(os.environ.get("ONECYCLE_RESULTS", tmp_path)).resolve()
    monkeypatch.chdir(tmp_path)
    wrong = with_wrong_labels(Path(os.environ["ONECYCLE_DATA"]), tmp_path / "noisy.tar")
    # Only its data and recipe count here.
    onecycle("train", "--data", "noisy.tar", *SHORT[:2], "--epochs", "0.1", "--out", "run")
    start = time.monotonic()
    found = onecycle("gallery", "run", "--label-errors", *SHORT, "--count", str(NAMED))
    named = {picture["name"] for picture in found["pictures"]}
    figures = {
        "data": Path(os.environ["ONECYCLE_DATA"]).name,
        "options": " ".join(SHORT),
        "wrong_labels": WRONG,
        "named": len(named),
        "wrong_and_named": len(wrong & named),
        "title": found["title"],
        "seconds": round(time.monotonic() - start),
        "machine": json.loads(Path("run/environment.json").read_bytes())["machine"],
    }
    place = files.make_folder(results / "label_errors")
    files.write_json(place / "cifar10.json", figures)
    print(f"{found['title']}: {len(wrong & named)} of {WRONG} wrong labels named")
    assert len(named) == NAMED and len(wrong & named) >= ENOUGH
