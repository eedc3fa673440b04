"""The demo page: what it answers, what it refuses, and that a real Chromium can use it."""

import asyncio
import base64
import io
import json
import re
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import browser
import pytest
from demo_requests import ask, hostile, png, question, told, upload
from PIL import Image

import onecycle
from onecycle import machine
from onecycle.errors import DataError, MissingExtraError, RecipeError
from onecycle.use import guard
from onecycle.use.classifier import trained
from onecycle.use.page import answer

# The same requests again, and the bytes that the process may have more after that: those of the
# uploads that it takes at once, which malloc may keep. Had one leaked each time, it would be more.
AGAIN, GROWTH = 5, guard.AT_ONCE * guard.BODY_LIMIT


@pytest.fixture(autouse=True)
def signals():
    """What the command does on signals ends with the test, or SIGTERM would not end the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def deaf():
    """Ignore SIGINT, as a script's background job does, until the program says otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(scope="module")
def served(judged, tmp_path_factory):
    """The page of a run, served by the command line: its process and its port."""
    home = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "onecycle", "demo", str(judged.path), "--json"]
    with (
        open(home / "said", "w") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, cwd=home, preexec_fn=deaf
        ) as process,
    ):
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield process, int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", url)[1])
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
    said = (home / "said").read_text()
    assert said.count("\n") == 1 and "for this machine alone" in said, said


def resident(process):
    """Bytes of memory that `process` has."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_hundred_hostile_requests_are_refused_and_memory_is_steady(served):
    process, port = served
    found = list(hostile(port))
    assert len(found) >= 100 and all(400 <= status < 500 for status in found), found
    before = resident(process)
    for _ in range(AGAIN):
        list(hostile(port))
    assert resident(process) - before < GROWTH
    assert told(port, png())[0] == 200, "it still answers"


def test_the_page_says_what_predict_says(served, judged):
    _, port = served
    status, body = told(port, png(7))
    assert status == 200
    label, seen = json.loads(body)["data"]
    image = Image.open(io.BytesIO(png(7)))
    (expected,) = judged.predict(image, top=5, threads=1)
    assert [(one["label"], one["confidence"]) for one in label["confidences"]] == [
        (name, pytest.approx(share, abs=1e-5)) for name, share in expected.top
    ]
    shown = base64.b64decode(re.search(r'data:image/png;base64,([^"]+)"', seen)[1])
    assert Image.open(io.BytesIO(shown)).size == (256, 128)


def test_a_bad_picture_is_answered_with_the_reason(served):
    status, body = upload(served[1], b"no picture")
    assert status == 422
    assert body == b"this picture can't be used: not an image of a known format"


def test_old_uploads_are_removed(served):
    _, port = served
    paths = [json.loads(upload(port, png(seed))[1])[0] for seed in range(guard.KEPT + 3)]
    there = [Path(path).is_file() for path in paths]
    assert there == [False] * 3 + [True] * guard.KEPT
    assert question(port, paths[0])[0] == 404
    assert ask(port, "GET", guard.FILE + paths[0])[0] == 404
    assert ask(port, "GET", guard.FILE + paths[-1])[1] == png(guard.KEPT + 2)


def test_other_machines_cannot_reach_it(served):
    _, port = served
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    with socket.socket() as tried:
        for address in {"127.0.0.2", *(a for a in others if ":" not in a)} - {"127.0.0.1"}:
            assert tried.connect_ex((address, port)) != 0, address


@pytest.mark.skipif(not browser.PROGRAM, reason="no Chromium on this machine")
def test_a_browser_uploads_a_picture_and_shows_the_answer(served, judged, tmp_path):
    _, port = served
    (tmp_path / "picture.png").write_bytes(png(7))
    (expected,) = judged.predict(tmp_path / "picture.png", top=5, threads=1)
    tab = browser.Browser(tmp_path / "profile")
    try:
        tab.open(f"http://127.0.0.1:{port}/", 1000, 700)
        tab.until("document.querySelector('input[type=file]')")
        root = tab.ask("DOM.getDocument")["root"]["nodeId"]
        field = tab.ask("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        tab.ask("DOM.setFileInputFiles", nodeId=field, files=[str(tmp_path / "picture.png")])
        tab.until("document.querySelector('img[src^=\"data:image/png\"]')?.naturalWidth == 256")
        text = tab.value("document.body.innerText")
        for name, share in expected.top:
            assert name in text and f"{share:.0%}" in text
        shot = base64.b64decode(tab.ask("Page.captureScreenshot", format="png")["data"])
        (tmp_path / "demo.png").write_bytes(shot)
        asked = [e for e in tab.events if e["method"] == "Network.requestWillBeSent"]
        hosts = {event["params"]["request"]["url"].split(",")[0] for event in asked}
        assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in hosts)
        said = [event for event in tab.events if event["method"] == "Log.entryAdded"]
        assert not said, "nothing is said in the console"
    finally:
        tab.close()


def respond(app, method="GET", path="/", receive=None, port=1, kind=b"application/json"):
    """What `app` behind a guard answers: the status of a request."""
    said = []

    async def send(message):
        said.append(message)

    async def nothing():
        return {"type": "http.request", "body": b'{"data":[null]}'}

    headers = [(b"host", b"127.0.0.1:1"), (b"content-type", kind), (b"x-forwarded-host", b"evil")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(guard.Guard(app, port, Path("/nowhere"))(scope, receive or nothing, send))
    return said[0]["status"]


def test_what_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.05)

    async def never(*_):
        await asyncio.Event().wait()

    assert respond(never) == 408
    assert respond(None, "POST", guard.ASK, receive=never) == 408


def test_too_much_at_once_is_refused(monkeypatch):
    monkeypatch.setattr(guard, "AT_ONCE", 0)
    assert respond(None, "POST", guard.ASK) == 429


def test_only_what_is_needed_of_a_request_is_handed_on():
    async def app(scope, receive, send):
        assert dict(scope["headers"]).keys() == {b"host", b"content-type", b"content-length"}
        assert scope["query_string"] == b""
        assert json.loads((await receive())["body"]) == {"data": [None], "fn_index": 0}
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert respond(app, "POST", guard.ASK) == 200


def test_an_answer_shows_where_the_network_looked(judged):
    found = answer(trained(judged.path, machine.choose("cpu", "fp32", 1)), png())
    assert found.seen.shape == (128, 256, 3) and len(found.prediction.top) == 3
    assert (found.seen[:, :128] != found.seen[:, 128:]).any()
    with pytest.raises(DataError, match="can't be used: empty file"):
        answer(trained(judged.path, machine.choose("cpu", "fp32", 1)), b"")


def test_what_can_go_wrong_is_said_in_a_line(judged, command, monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RecipeError, match=r"--port \d+: Address already in use"):
            onecycle.demo(judged, port=taken.getsockname()[1])
    with pytest.raises(RecipeError, match="--port 70000"):
        onecycle.demo(judged, port=70_000)
    code, _, err = command("demo", tmp_path)
    assert code == 2 and "no run is there" in err and err.count("\n") == 1
    for module in ("uvicorn", "gradio", "captum"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(MissingExtraError, match=r"pip install 'onecycle\[demo\]'"):
                onecycle.demo(judged, quiet=True)


def test_the_page_in_python_ends_when_it_is_closed(judged, monkeypatch):
    """With a small page in the place of gradio's, which takes seconds to import."""

    async def small(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"small"})

    module = import_module("onecycle.api.demo")
    monkeypatch.setattr(module, "page", lambda _: (small, Path("/nowhere")))
    page = onecycle.demo(judged, quiet=True)
    port = int(page.url.rstrip("/").rpartition(":")[2])
    assert ask(port, "GET", "/") == (200, b"small")
    page.close()
    with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/")
