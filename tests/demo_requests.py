"""Requests to the demo page: a person's, and a hundred hostile ones."""

import contextlib
import http.client
import io
import json

import numpy as np
from PIL import Image

from onecycle.use import guard


def png(seed=0, size=(40, 30)):
    draw = np.random.default_rng(seed)
    content = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


def bomb():
    """A PNG that says it has 3.6 billion pixels."""
    whole = bytearray(png())
    whole[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(whole)


def ask(port, method, path, body=None, **headers):
    """Status and body of the answer to one request; chunked if `body` is a list."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # before all was sent
        connection.request(method, path, body, names, encode_chunked=isinstance(body, list))
    try:
        got = connection.getresponse()
        try:
            return got.status, got.read()
        except http.client.IncompleteRead as cut:  # refused before all was sent: a reset may win
            return got.status, cut.partial
    finally:
        connection.close()


def upload(port, content, name="picture.png", **headers):
    body = (
        b'--b\r\ncontent-disposition: form-data; name="files"; filename="%s"\r\n'
        b"content-type: image/png\r\n\r\n%s\r\n--b--\r\n" % (name.encode(), content)
    )
    headers = {"content_type": "multipart/form-data; boundary=b"} | headers
    return ask(port, "POST", guard.UPLOAD, body, **headers)


def question(port, path, **more):
    body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}, **more}]})
    return ask(port, "POST", guard.ASK, body, content_type="application/json")


def told(port, content):
    """Upload a picture and ask about it."""
    (path,) = json.loads(upload(port, content)[1])
    return question(port, path)


def hostile(port):
    """A hundred requests, and the status of the answer to each."""
    json_kind = {"content_type": "application/json"}
    for path in (
        "/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=..%2f..%2fetc/passwd",
        "/gradio_api/file=http://127.0.0.1:9/x.png",
        f"/file={__file__}",
        "/gradio_api/proxy=http://127.0.0.1:9/x.png",
        "/proxy=https://example.org/",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/assets/..%5c..%5cwin.ini",
        "/assets/.hidden",
        "/svelte/../../x",
        "/config",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/openapi.json",
        "/docs",
        "/monitoring",
        "/gradio_api/startup-events",
        "/gradio_api/heartbeat/abc",
        "/gradio_api/queue/data?session_hash=abc",
        "/gradio_api/custom_component/1/client/component/x.js",
        "/gradio_api/stream/a/1/2/playlist.m3u8",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/gradio_api/vibe-code/",
        "/login_check",
        "/token",
        "/user",
        "/%00",
        "/" + "a" * 20_000,
    ):
        yield ask(port, "GET", path)[0]
    for path in ("queue/join", "run/look", "call/look", "api/predict", "reset", "cancel"):
        yield ask(port, "POST", f"/gradio_api/{path}", "{}", **json_kind)[0]
    for path in ("component_server", "process_recording", "vibe-edit", "stream/1", "login"):
        yield ask(port, "POST", f"/gradio_api/{path}", "{}", **json_kind)[0]
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"):
        yield ask(port, method, "/")[0]
    for path in (guard.UPLOAD, guard.ASK):
        yield ask(port, "GET", path)[0]
    for host in ("evil.example", "127.0.0.1", "localhost:1", "", "127.0.0.1:80@evil.example"):
        yield ask(port, "GET", "/", host=host)[0]
        yield upload(port, png(), host=host)[0]
    for origin in ("http://evil.example", "null", "https://127.0.0.1", "http://localhost"):
        yield upload(port, png(), origin=origin)[0]
        yield ask(port, "POST", guard.ASK, '{"data":[null]}', origin=origin, **json_kind)[0]
    yield ask(port, "POST", guard.ASK, '{"data":[null]}', content_type="text/plain")[0]
    yield upload(port, png(), content_type="text/plain")[0]
    yield upload(port, png(), content_type="multipart/form-data")[0]
    yield upload(port, png(), content_length=str(10**10))[0]
    yield upload(port, bytes(guard.BODY_LIMIT))[0]
    form = {"content_type": "multipart/form-data; boundary=b"}
    for count in (21, 210):  # megabytes, in pieces that don't say how many come
        yield ask(port, "POST", guard.UPLOAD, [bytes(10**6)] * count, **form)[0]
    for body in (
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"data":[]}',
        '{"data":[1]}',
        '{"data":["/etc/passwd"]}',
        '{"data":[{}]}',
        '{"data":[{"path":1}]}',
        '{"data":[null,null]}',
        '{"data":{"path":"x"}}',
        "[" * 9_000,
        '{"data":[null]}' + " " * guard.ASK_LIMIT,
    ):
        yield ask(port, "POST", guard.ASK, body, **json_kind)[0]
    for path in ("/etc/passwd", "http://127.0.0.1:9/x.png", __file__, "", "../x", "\0"):
        yield question(port, path, url="http://127.0.0.1:9/x.png")[0]
    for content in (b"no picture", bomb(), png()[:200], b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"):
        yield upload(port, content)[0]
