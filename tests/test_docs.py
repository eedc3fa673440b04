"""What can be checked of the pages: links, pictures, commands and the recipes' fields."""

import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cyclopts import CycloptsError

from onecycle.cli import app as command_line
from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import parse

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += DOCS
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"`(onecycle [a-z-]+[^`]*)`")
LARGEST = 100_000  # bytes of a picture


def name(path):
    return str(path.relative_to(ROOT))


def prose(text):
    return FENCED.sub("", text)


def links(text):
    """The targets of a page's links and pictures, those in code left out."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "code", prose(text)))


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    heads = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def problem(page, target):
    """What is wrong with a link of `page`, or None."""
    if ":" in target:
        parts = urlsplit(target)
        return None if parts.scheme == "https" and "." in parts.netloc else "not https"
    path, _, anchor = target.partition("#")
    found = (page.parent / path) if path else page
    if not found.exists() or not found.resolve().is_relative_to(ROOT):
        return "no such file"
    if anchor and anchor not in anchors(found.read_text()):
        return "no such heading"
    return None


def commands(text):
    """The command lines of a page: in its blocks for a shell, and within its sentences."""
    for language, block in FENCED.findall(text):
        if language == "sh":
            lines = block.replace("\\\n", " ").splitlines()
            yield from (line for line in lines if line.startswith("onecycle "))
    yield from COMMAND.findall(prose(text).replace("\n", " "))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    wrong = {target: problem(page, target) for target in links(page.read_text())}
    assert not {target: what for target, what in wrong.items() if what}


def test_a_broken_link_would_be_noticed():
    page = ROOT / "docs" / "scale.md"
    assert links("![x](a.png) `[y](b)` [z](c.md#d)\n```sh\n[q](r)\n```\n") == ["a.png", "c.md#d"]
    assert problem(page, "nothing.md") == problem(page, "../../x") == "no such file"
    assert problem(page, "one-cycle.md#no-such") == "no such heading"
    assert problem(page, "one-cycle.md#why-it-works-and-when-it-doesnt") is None
    assert problem(page, "http://example.org") == "not https"
    assert problem(page, "https://example.org/x") is None


def test_every_page_and_picture_is_led_to():
    all_links = [(page, target) for page in PAGES for target in links(page.read_text())]
    led = {(page.parent / target.partition("#")[0]).resolve() for page, target in all_links}
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    assert not [name(path) for path in [*DOCS, *pictures] if path.resolve() not in led]
    assert max(path.stat().st_size for path in pictures) < LARGEST


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_is_one_that_is_understood(page):
    for line in commands(page.read_text()):
        verb, *rest = shlex.split(line, comments=True)[1:]
        assert verb in command_line.app, line
        if rest and rest != ["--help"]:  # a verb alone is named, not given
            command_line.app.parse_args([verb, *rest], exit_on_error=False, print_error=False)


def test_a_wrong_command_would_be_noticed():
    text = "`onecycle trian` and `onecycle\nresults`\n```sh\nonecycle train --dta \\\n  x\n```\n"
    block, first, second = commands(text)
    assert shlex.split(block) == ["onecycle", "train", "--dta", "x"]
    assert (first, second) == ("onecycle trian", "onecycle results")
    assert "trian" not in command_line.app and "results" in command_line.app
    with pytest.raises(CycloptsError, match="--dta"):
        command_line.app.parse_args(["train", "--dta"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_is_a_field_of_a_recipe(page):
    for language, block in FENCED.findall(page.read_text()):
        if language == "toml":
            content = book.find("davidnet").to_dict()
            for key, value in tomllib.loads(block).items():
                table = isinstance(value, dict)
                content[key] = {**content.get(key, {}), **value} if table else value
            parse(content, name(page))
    with pytest.raises(RecipeError):
        parse({**book.find("davidnet").to_dict(), "cutuot": 8}, name(page))


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert version in (ROOT / "CHANGELOG.md").read_text()
