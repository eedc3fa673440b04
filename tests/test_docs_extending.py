"""What docs/extending.md says is done in a copy of the package, block by block."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(PAGE.read_text())
MOST_LINES = 30
# Runs lines of a shell one after another, without waiting for torch at each.
DRIVER = """
import runpy, shlex, sys
from onecycle import cli
for line in sys.argv[1:]:
    program, *words = shlex.split(line)
    if program == "python":
        runpy.run_path(words[0])
    else:
        quick = ["--quiet", "--precision", "fp32", "--threads", "1"] if words[0] == "train" else []
        sys.argv = [program, *words, *quick]
        cli.main()
"""


def edit(path, diff):
    """Put the lines with a + where those with a - are; a beginning of a line is enough."""
    text = path.read_text()
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        old, new = (re.sub(r"^[-+]", "", lines, flags=re.MULTILINE)[:-1] for lines in (old, new))
        assert text.count(f"\n{old}") == 1, f"{path.name} has no single {old!r}"
        text = text.replace(f"\n{old}", f"\n{new}")
    path.write_text(text)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with all that the page adds to it, in a folder with its other files."""
    shutil.copytree(ROOT / "onecycle", tmp_path / "onecycle")
    for language, text in BLOCKS:
        first, _, rest = text.partition("\n")
        if language == "diff":
            edit(tmp_path / first.removeprefix("--- "), rest)
        elif language != "sh":
            (tmp_path / first.removeprefix("# ")).write_text(text)
    return tmp_path


def test_what_the_page_says_goes_through(copy):
    lines = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
    assert len(lines) == 8
    variables = {"PYTHONPATH": str(copy), "ONECYCLE_CACHE": str(copy / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *lines],
        cwd=copy,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if re.match(r"(recipe|data) ", line)]
    assert sum(line.startswith("recipe          mine+custom ") for line in told) == 4
    assert "data            noise" in told
    recipes = [path.read_text() for path in copy.glob("runs/*/recipe.json")]
    assert len(recipes) == 4 and sum('"plain"' in recipe for recipe in recipes) == 1


def test_each_of_them_is_under_thirty_lines():
    page = PAGE.read_text()
    sections = re.split(r"^##+ (.*)$", page, flags=re.MULTILINE)[1:]
    assert sections[::2] == ["A recipe", "A data set", "A file format", "A network"]
    for name, section in zip(sections[::2], sections[1::2], strict=True):
        added = 0
        for language, text in BLOCK.findall(section):
            if language != "sh" and not text.startswith("# arrays.py"):
                lines = [line for line in text.splitlines()[1:] if line.strip()]
                added += sum(language != "diff" or line.startswith("+") for line in lines)
        assert 0 < added < MOST_LINES, f"{name}: {added} lines"


def test_an_edit_that_no_longer_fits_is_told(tmp_path):
    path = tmp_path / "file.py"
    path.write_text("\nNAMES = {'a': 1}\n")
    edit(path, "-NAMES = {\n+NAMES = {'b': 2, \n")
    assert path.read_text() == "\nNAMES = {'b': 2, 'a': 1}\n"
    with pytest.raises(AssertionError, match="no single 'LOST"):
        edit(path, "-LOST\n+FOUND\n")
