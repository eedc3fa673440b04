"""A server of an archive: right, slow, broken, or wrong, as the path asks for."""

import time
from http.server import BaseHTTPRequestHandler

import numpy as np

from onecycle.datasets import fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 400_000, np.uint8).tobytes()
PIECE = 2 * fetch.BLOCK  # what was read of a block that broke off is lost
FILE = "cifar-10-python.tar.gz"


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT in the way that the first part of the path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        way = self.path.split("/")[1]
        self.server.requests.append((way, self.headers.get("Range")))
        getattr(self, way.replace("-", "_"))()
        self.close_connection = True

    def log_message(self, *_):
        pass

    def send(self, content, status=200, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not False:
            self.send_header("Content-Length", str(length or len(content)))
        # Said, because a client that hopes to go on with this connection meets its end.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def start(self):
        given = self.headers.get("Range")
        return int(given.removeprefix("bytes=").rstrip("-")) if given else 0

    def send_from(self, start, content, **more):
        """From `start` on, as a server that knows Range."""
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.send(
            content, 206 if start else 200, **more, **({"Content_Range": place} if start else {})
        )

    def right(self):
        self.send_from(self.start(), CONTENT[self.start() :])

    def without_range(self):
        self.send(CONTENT)

    def closes(self):
        """131,072 bytes at a time, then the connection breaks."""
        start = self.start()
        self.send_from(start, CONTENT[start : start + PIECE], length=len(CONTENT) - start)

    def closes_without_range(self):
        self.send(CONTENT[:PIECE], length=len(CONTENT))

    def truncated(self):
        self.send(CONTENT[:PIECE])

    def truncated_silently(self):
        self.send(CONTENT[:PIECE], length=False)

    def corrupt(self):
        start = self.start()
        self.send_from(start, bytes(1000) + CONTENT[start + 1000 :])

    def corrupt_half(self):
        self.send(bytes(PIECE), length=len(CONTENT))

    def too_long(self):
        self.send(CONTENT + b"more", length=False)

    def wrong_range(self):
        self.send(CONTENT[: len(CONTENT) - self.start()], 206, Content_Range="bytes 0-7/8")

    def stalls(self):
        start = self.start()
        self.send_from(start, CONTENT[start : start + fetch.BLOCK], length=len(CONTENT) - start)
        self.server.over.wait(20)

    def never_answers(self):
        self.server.over.wait(20)

    def slow(self):
        start = self.start()
        self.send_from(start, b"", length=len(CONTENT) - start)
        for place in range(start, len(CONTENT), 10_000):
            time.sleep(0.02)
            self.wfile.write(CONTENT[place : place + 10_000])

    def missing(self):
        self.send(b"<html>not here", 404)

    def page(self):
        self.send(b"<html>maintenance", 200)

    def elsewhere(self):
        self.send(b"", 302, Location=f"/right/{FILE}")
