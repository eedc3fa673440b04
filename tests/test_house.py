"""The way of the data: imports go toward the left only, and no file outgrows its room."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "onecycle"
BASE = ["errors", "files", "ranks", "allocator", "jit", "machine"]
WAY = ["recipe", "datasets", "model", "evaluation", "training", "run", "reporting", "use"]
RIGHTMOST = ["progress", "api", "__init__", "cli", "__main__"]
RANK = {name: rank for rank, name in enumerate([*BASE, *WAY, *RIGHTMOST])}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree):
    """The names of the package's rooms that a module imports anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [
                "onecycle.__init__" if alias.name == "onecycle" else alias.name
                for alias in node.names
            ]
        elif isinstance(node, ast.ImportFrom) and node.module == "onecycle":
            names = [f"onecycle.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("onecycle."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_toward_the_left(path):
    here = room(path)
    for other in imported(ast.parse(path.read_text())):
        assert other == here or RANK[other] < RANK[here], f"{path} imports onecycle.{other}"


def test_a_wrong_import_would_be_noticed():
    tree = ast.parse(
        "from onecycle.run.conduct import x\nfrom onecycle import api\nimport onecycle"
    )
    assert list(imported(tree)) == ["run", "api", "__init__"]
    assert RANK["run"] > RANK["model"]


def test_no_folder_hides_a_verb():
    verbs = "train find_lr evaluate gallery report predict export demo data recipes summary results"
    for verb in [*verbs.split(), "ablate", "bench", "doctor"]:
        assert not (PACKAGE / verb).is_dir() and not (PACKAGE / f"{verb}.py").exists()


def test_reports_read_run_folders_without_model_or_loop():
    for path in (PACKAGE / "reporting").glob("*.py"):
        assert not {"model", "training"} & set(imported(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_room(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_a_file_of_tests_is_one_room_too(path):
    assert len(path.read_text().splitlines()) <= 300


def named(tree):
    """Every name that a module imports or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        if isinstance(node, ast.alias | ast.Attribute | ast.Name):
            yield getattr(
                node, {ast.alias: "name", ast.Attribute: "attr", ast.Name: "id"}[type(node)]
            )


def test_pickle_would_be_noticed():
    for code in ("import pickle", "from pickle import loads", "pickle.load", "import _pickle as p"):
        assert any("pickle" in name for name in named(ast.parse(code)))


def test_only_safe_formats_are_read():
    for path in FILES:
        text = path.read_text().replace("allow_pickle=False", "")
        assert "torch.load(" not in text
        # CIFAR's batches are pickles: one file takes them apart, and none ever loads one.
        known = {"pickletools"} if path.name == "unpickle.py" else {"unpickle"}
        assert {name for name in named(ast.parse(text)) if "pickle" in name} <= known
