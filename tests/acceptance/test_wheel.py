"""A wheel of a clean clone, installed elsewhere, works from an empty folder.

`pytest tests/acceptance/test_wheel.py` (git is needed, and setuptools, which torch brings along).
What is tested is what is committed.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(*command, cwd, **variables):
    """What `command` prints; it knows neither this repository nor this user's cache."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "ONECYCLE_DATA")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "clone", "--quiet", ROOT, folder / "clone", cwd=folder)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, folder / "clone", cwd=folder)
    (made,) = folder.glob("onecycle-*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A Python of its own, with the wheel, and this one's libraries within sight."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    place = Path(run(python, "-c", purelib, cwd=folder).strip())
    # Of a folder named in a .pth no further .pth is read, so that an editable install stays out.
    (place / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, wheel, cwd=folder)
    return python


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    listed = run("git", "ls-tree", "-r", "--name-only", "HEAD", "onecycle", cwd=ROOT).splitlines()
    for needed in ("py.typed", "recipe/catalog/lock.json", "reporting/templates/page.html"):
        assert f"onecycle/{needed}" in listed
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = packed.read(metadata).decode()
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(listed)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in said and "Author: The onecycle authors" in said


def test_it_works_from_an_empty_folder(python, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()

    def onecycle(*words):
        command = python.parent / "onecycle"
        return run(command, *words, cwd=empty, ONECYCLE_CACHE=str(tmp_path / "cache"))

    where = run(python, "-c", "import onecycle; print(onecycle.__file__)", cwd=empty).strip()
    assert Path(where).is_relative_to(python.parent.parent)
    assert "davidnet" in onecycle("recipes")
    assert "test accuracy" in onecycle("train", "--data", "digits", "--epochs", "1", "--quiet")
    (made,) = empty.glob("runs/*")
    onecycle("report", made, "--quiet")
    assert "Model card" in (made / "report.html").read_text()
    assert sorted(path.name for path in empty.iterdir()) == ["runs"]
