"""`report`: all is on one page that runs nothing and asks for nothing, whatever names are in it."""

import base64
import io
from collections import Counter

from markdown_it import MarkdownIt
from PIL import Image
from report_files import PAYLOADS, Parsed, drawn_at_once, make_run, without_maps

import onecycle
from onecycle.recipe import book

__all__ = ["drawn_at_once", "make_run", "without_maps"]


def hostile(make_run):
    """A run in which everything that may have any name is called by the payloads."""
    recipe = book.change(book.find("davidnet"), ["model.width=2"], epochs=3)
    recipe = recipe.model_copy(update={"about": PAYLOADS[0]})
    name = " ".join(PAYLOADS).replace("/", "\\")[:120]
    return make_run(name, PAYLOADS, PAYLOADS, recipe, " ".join(PAYLOADS))


def test_hostile_names_stay_text(make_run, drawn_at_once):
    found = Parsed(onecycle.report(hostile(make_run), quiet=True).path)
    plain = Parsed(onecycle.report(make_run(), quiet=True).path)
    assert found.shape == plain.shape
    for tags in (found.tags, plain.tags):
        assert not {"script", "iframe", "object", "base", "form", "link"} & {tag for tag, _ in tags}
        assert not [name for _, attributes in tags for name in attributes if name[:2] == "on"]
    for payload in PAYLOADS:
        assert payload in found.text


def test_hostile_names_are_drawn_too(make_run, without_maps):
    content = onecycle.report(hostile(make_run), quiet=True).path.read_text()
    assert "<script" not in content and content.count('src="data:image/png;base64,') > 5


def test_nothing_is_asked_for(make_run, drawn_at_once):
    found = Parsed(onecycle.report(make_run(), quiet=True).path)
    ids = found.attributes("id")
    assert len(ids) == len(set(ids)) > 5
    assert {address[1:] for address in found.attributes("href")} <= set(ids)
    assert all(address[0] == "#" for address in found.attributes("href"))
    for address in found.attributes("src"):
        kind, content = address.split(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content, validate=True))).verify()
    assert not [name for _, attributes in found.tags for name in attributes if "srcset" in name]
    assert "url(" not in found.text and "@import" not in found.text
    policy = {"default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
    assert policy <= set(found.attributes("content"))
    tags = [tag for tag, _ in found.tags]
    assert tags.index("meta") < tags.index("style") and tags.index("body") < tags.index("img")


def test_pictures_have_words_and_tables_have_heads(make_run, drawn_at_once):
    found = Parsed(onecycle.report(make_run(), quiet=True).path)
    images = [attributes for tag, attributes in found.tags if tag == "img"]
    assert len(images) > 5 and all(len(image["alt"]) > 10 for image in images)
    counts = Counter(tag for tag, _ in found.tags)
    assert counts["h1"] == 1 and counts["table"] >= 4
    assert all(attributes.get("scope") for tag, attributes in found.tags if tag == "th")
    labelled = [attributes for _, attributes in found.tags if attributes.get("role") == "region"]
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in labelled)


def test_names_mean_nothing_in_the_card(make_run, drawn_at_once, tmp_path):
    target = tmp_path / "card.md"
    onecycle.report(hostile(make_run), card=target, quiet=True)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(target.read_text())
    block = {"heading", "bullet_list", "list_item", "paragraph"}
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds == block | {"inline"}
    inside = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inside} <= {"text", "text_special"}
    text = "".join(child.content for child in inside)
    for payload in PAYLOADS:
        assert " ".join(payload.split()) in text
    headings = [token for token in tokens if token.type == "heading_open"]
    assert [token.tag for token in headings] == ["h1", "h2", "h2", "h2", "h2"]
