"""The report in a real Chromium: it fits a phone and a desktop, is dark on request, and prints."""

import base64
import io
from importlib import import_module

import browser
import numpy as np
import pytest
from PIL import Image
from report_files import named, write_run

import onecycle
from onecycle.run import reopen

pytestmark = pytest.mark.skipif(
    not browser.PROGRAM, reason="no Chromium on this machine, so the page is not opened"
)
LONG = "a-class-with-a-name-that-is-longer-than-any-phone-is-wide-" * 2
VIEWS = {"phone": (390, 844), "small phone": (360, 640), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def report(tmp_path_factory, make_data):
    """The report on a run whose names are long."""
    data = named(make_data(size=32), ("cat", LONG, "dog"), LONG, [LONG])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reopen, "dataset", lambda *_, **__: data)
        patch.setattr(import_module("onecycle.api.report"), "find_spec", lambda _: None)
        folder = write_run(tmp_path_factory.mktemp("runs") / LONG, data)
        return onecycle.report(folder, quiet=True).path


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def screen(tab):
    """What is seen, (H, W, 3)."""
    png = base64.b64decode(tab.ask("Page.captureScreenshot", format="png")["data"])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_is_no_wider_than_the_screen_and_shows_all(tab, report, name):
    width, height = VIEWS[name]
    tab.open(report, width, height)
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value("document.body.scrollWidth") == width
    seen = screen(tab)
    assert seen.shape == (height, width, 3) and seen.min() < 64 and seen.mean() > 128
    shown = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    images = tab.value(shown)
    assert len(images) > 5 and all(images)
    told = [event for event in tab.events if event["method"] in ("Log.entryAdded",)]
    assert not told, "nothing is said in the console"
    asked = [e for e in tab.events if e["method"] == "Network.requestWillBeSent"]
    addresses = {event["params"]["request"]["url"].partition(",")[0] for event in asked}
    assert addresses == {report.resolve().as_uri(), "data:image/png;base64"}


def test_the_page_is_dark_where_that_is_asked_for(tab, report):
    tab.open(report, *VIEWS["desktop"], dark=True)
    seen = screen(tab)
    assert seen.mean() < 64 and seen.max() > 192


def test_the_policy_holds(tab, report, tmp_path):
    """The same page with a script in it, which would rename it, and a request."""
    bad = tmp_path / "bad.html"
    evil = "<script>document.title = 'run'</script><img src='file:///x.png'></main>"
    bad.write_text(report.read_text().replace("</main>", evil))
    tab.open(bad, *VIEWS["desktop"])
    assert tab.value("document.title") != "run"
    told = [e["params"]["entry"]["text"] for e in tab.events if e["method"] == "Log.entryAdded"]
    assert len(told) >= 2 and all("Content Security Policy" in text for text in told)


def test_the_page_can_be_printed(tab, report):
    tab.open(report, *VIEWS["desktop"])
    pdf = base64.b64decode(tab.ask("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF") and 2 <= pdf.count(b"/Type /Page\n") <= 30
