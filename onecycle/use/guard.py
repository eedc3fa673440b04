"""What a client of the demo page may ask: a wall before gradio, which by itself answers far more.

The page is for one person on this machine. Any web site that the person visits can send requests
there too, so that a request is answered only if it is one of those that the page itself makes.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from onecycle.datasets import decode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_LIMIT = 20_000_000  # bytes of an upload
ASK_LIMIT = 10_000  # bytes of a question, which only names an upload
HEARD_OUT = 10  # times a limit is read, and not kept, for a browser to see why it is refused
SECONDS = 30.0  # from the first byte of a request to the last of its answer
AT_ONCE = 4  # uploads and questions in work; more are refused
KEPT = 16  # uploads on the disk; older ones are removed

UPLOAD, ASK = "/gradio_api/upload", "/gradio_api/run/predict"
FILE = "/gradio_api/file="
UPLOADING = "/gradio_api/upload_progress"  # which the page asks for, and does without
# What is handed on of a request; gradio believes others, as x-forwarded-host.
HANDED_ON = (b"host", b"accept", b"content-type")
# What the page consists of. No `..`, no `//`, nothing that is no plain name.
PART = re.compile(r"/|/(manifest\.json|favicon\.ico|theme\.css)|/(assets|static)(/[\w-][\w.-]*)+")


class Refused(Exception):
    """A request that is not answered, with the HTTP status that says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """The ASGI application `app` on `port`, for no other requests than those of its own page.

    `folder` is where it keeps uploads.
    """

    def __init__(self, app: App, port: int, folder: Path) -> None:
        self._app = app
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._folder = folder
        self._working = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(SECONDS):
                await self._answer(scope, receive, sent)
        except TimeoutError:
            if not begun:
                await _say(send, 408, f"not done within {SECONDS:g} seconds")
        except Refused as refused:
            await _say(send, refused.status, str(refused))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refused."""
        headers = self._checked(scope)
        kept = [(name, value) for name, value in scope["headers"] if name in HANDED_ON]
        scope = {**scope, "query_string": b"", "headers": kept}
        if scope["path"] == UPLOADING:
            await _say(send, 204, "")
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._working >= AT_ONCE:
            raise Refused(429, "too much at once")
        self._working += 1
        try:
            limit = BODY_LIMIT if scope["path"] == UPLOAD else ASK_LIMIT
            body = await _body(headers, receive, limit)
            if scope["path"] == ASK:
                body = self._question(body)
            else:
                self._make_room()
            kept.append((b"content-length", str(len(body)).encode()))
            said: list[Message] = []
            await self._app(scope, _as_received(body, receive), _into(said))
            if scope["path"] == UPLOAD and said[0]["status"] == 200:
                await asyncio.to_thread(_check_pictures, b"".join(m.get("body", b"") for m in said))
            for message in said:
                await send(message)
        finally:
            self._working -= 1

    def _checked(self, scope: Scope) -> dict[bytes, bytes]:
        """The request's headers. Raises Refused for what the page would not ask."""
        if scope["type"] != "http":
            raise Refused(403, "no web sockets")
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host not in self._hosts:  # a name that a web site made to lead here
            raise Refused(403, "another host")
        origin = headers.get(b"origin")
        if origin is not None and origin != f"http://{host}".encode():
            raise Refused(403, "asked by another page")
        path: str = scope["path"]
        wanted: tuple[str, ...] = ("POST",)
        if path not in (UPLOAD, ASK):
            wanted = ("GET", "HEAD")
            if path.startswith(FILE):
                self._upload(path.removeprefix(FILE))
            elif path != UPLOADING and not PART.fullmatch(path):
                raise Refused(404, "no such part of the page")
        if scope["method"] not in wanted:
            raise Refused(405, "another method")
        kind = b"multipart/form-data" if path == UPLOAD else b"application/json"
        if wanted == ("POST",) and not headers.get(b"content-type", b"").startswith(kind):
            raise Refused(415, "another kind of content")
        return headers

    def _question(self, body: bytes) -> bytes:
        """What is handed on of a question: the upload that it names, and nothing else."""
        try:
            asked = json.loads(body)
            (given,) = asked["data"]
            path = None if given is None else self._upload(given["path"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused(400, "not a question of this page") from error
        file = path and {"path": path, "meta": {"_type": "gradio.FileData"}}
        return json.dumps({"data": [file], "fn_index": 0}).encode()

    def _upload(self, path: Any) -> str:
        """`path`, if it is that of an upload. Raises Refused."""
        inside = rf"{re.escape(str(self._folder))}/[0-9a-f]{{64}}/[^/\0]+"
        if not isinstance(path, str) or not re.fullmatch(inside, path) or path.endswith("/.."):
            raise Refused(403, "no upload")
        if not Path(path).is_file():
            raise Refused(404, "that upload is gone")
        return path

    def _make_room(self) -> None:
        """Remove all but the newest uploads."""
        try:
            found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        except OSError:  # another request removes them
            return
        for path in found[: -KEPT + 1]:
            shutil.rmtree(path, ignore_errors=True)


async def _body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body, kept up to `limit` bytes. Raises Refused."""
    too_long = Refused(413, f"more than {limit:,} bytes")
    left = HEARD_OUT * limit
    if int(headers.get(b"content-length", b"0")) > left:
        raise too_long
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "broken off")
        part = message.get("body", b"")
        left -= len(part)
        if left < 0:
            raise too_long
        body += part[: limit + 1 - len(body)]
        if not message.get("more_body"):
            if len(body) > limit:
                raise too_long
            return bytes(body)


def _as_received(body: bytes, receive: Receive) -> Receive:
    """`receive` anew, with the body that was read already."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


def _into(said: list[Message]) -> Send:
    """A `send` that keeps what is sent."""

    async def keep(message: Message) -> None:
        said.append(message)

    return keep


def _check_pictures(uploads: bytes) -> None:
    """Remove an upload that is no picture, of the JSON list of them, and raise Refused."""
    for path in map(Path, json.loads(uploads)):
        found = decode.look(path.read_bytes(), decode.SMALLEST).pixels
        if isinstance(found, str):
            shutil.rmtree(path.parent)
            raise Refused(422, f"this picture can't be used: {found}")


async def _say(send: Send, status: int, why: str) -> None:
    """Answer with `status`, and `why` in words, which the page shows."""
    content = why.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
