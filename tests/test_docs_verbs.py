"""The pages of the verbs are what the command line's help says now."""

import importlib.util
from pathlib import Path

import pytest
from cyclopts import App

SCRIPT = Path(__file__).parent.parent / "scripts" / "verbs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("verbs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_the_ones_that_their_script_writes(script):
    there = {path.name: path.read_text() for path in script.FOLDER.glob("*.md")}
    assert there == script.pages(), "run: python scripts/verbs.py"


def test_a_terminals_width_changes_nothing(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    wide = script.pages()
    monkeypatch.setenv("COLUMNS", "40")
    assert script.pages() == wide
    assert not set("│╭─╮╰╯") & set("".join(wide.values()))


def test_a_new_verb_gets_a_page_and_a_lost_one_loses_it(script, monkeypatch, tmp_path):
    app = App(name="onecycle")

    @app.command
    def shout(word: str, /, *, often: int = 1, softly: bool = False):
        """Say it aloud.

        Parameters
        ----------
        word:
            What to say.
        often:
            How many times.
        softly:
            Don't.
        """

    monkeypatch.setattr(script.cli.app, "app", app)
    monkeypatch.setattr(script, "FOLDER", tmp_path / "verbs")
    script.FOLDER.mkdir()
    (script.FOLDER / "whisper.md").write_text("old")
    script.main()
    assert sorted(path.name for path in script.FOLDER.iterdir()) == ["README.md", "shout.md"]
    assert "| [shout](shout.md) | Say it aloud. |" in (script.FOLDER / "README.md").read_text()
    page = (script.FOLDER / "shout.md").read_text()
    assert page.startswith("# onecycle shout\n\n```console\nonecycle shout ")
    for said in ("`WORD`: What to say. **[required]**", "How many times. *[default: 1]*"):
        assert said in page
    assert "Don't.\n" in page
