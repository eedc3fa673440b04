"""A real Chromium for the tests, spoken to over a pipe in the DevTools protocol."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


class Browser:
    """A browser with one tab; `events` holds what it has told so far."""

    def __init__(self, profile):
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        # The protocol's pipe is at the descriptors 3 and 4.
        start = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, "bash", PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(their_in, their_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._in, self._out = our_in, our_out
        self._left, self._number, self._session, self.events = b"", 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """The answer to one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def open(self, path, width, height, dark=False):
        """Show the file at `path`, or that address, in a window of that size; narrow is a phone."""
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.ask("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        self.ask("Page.navigate", url=path if isinstance(path, str) else path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression):
        """What the JavaScript `expression` gives, asked from outside of the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
            "value"
        ]

    def until(self, expression):
        """Wait until the JavaScript `expression` gives something true."""
        end = time.monotonic() + 60
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def close(self):
        """End the browser."""
        with contextlib.suppress(OSError):
            self._session = None
            self.ask("Browser.close")
        os.close(self._in)
        os.close(self._out)
        self._process.wait(20)

    def _read(self):
        end = time.monotonic() + 60
        while b"\0" not in self._left:
            assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "no answer"
            part = os.read(self._in, 1 << 20)
            if not part:
                raise OSError("the browser is gone")
            self._left += part
        message, self._left = self._left.split(b"\0", 1)
        return json.loads(message)
