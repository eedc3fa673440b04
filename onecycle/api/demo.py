"""The demo page as a Python function: a server on this machine, for this machine."""

import socket
import threading
import time
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from onecycle import machine, progress
from onecycle.errors import OnecycleError, RecipeError, need
from onecycle.use.classifier import trained
from onecycle.use.guard import Guard
from onecycle.use.page import page

HOST = "127.0.0.1"
CONNECTIONS = 64  # open at once; more are refused
STARTED_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class Demo:
    """A demo page that is served until it is closed."""

    url: str
    _server: Any = field(repr=False)
    _thread: threading.Thread = field(repr=False)

    def wait(self) -> None:
        """Return when the page is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join()


def demo(
    run: str | PathLike[str],
    *,
    port: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Demo:
    """Serve a page on which one drops or pastes a picture, and sees what a finished run says of it.

    The five likeliest classes come with their probabilities, calibrated if the run has a validation
    part, and with a Grad-CAM map of the likeliest one. Only this machine can open the page, at
    `port`, by default any free one; pictures are kept nowhere beyond its end.

    Raises RecipeError for a run that is missing or not finished or a port in use, MissingExtraError
    without gradio or captum, DiskError.
    """
    uvicorn: Any = need("uvicorn", "demo", "the demo page")
    listening = _listen(port)
    try:
        use = trained(run, machine.choose(device, "fp32", threads))
        app, folder = page(use)
        number = listening.getsockname()[1]
        config = uvicorn.Config(
            Guard(app, number, folder),
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=1,
            ws="none",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        _until_started(server, thread)
    except BaseException:
        listening.close()
        raise
    url = f"http://{HOST}:{number}/"
    progress.Show(quiet).note(f"{url} on {use.machine.device}, for this machine alone")
    return Demo(url, server, thread)


def _listen(port: int | None) -> socket.socket:
    """A socket that takes connections from this machine at `port`. Raises RecipeError."""
    if port is not None and not 1 <= port <= 65535:
        raise RecipeError(f"--port {port}: give 1 to 65535")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port or 0))
        listening.listen()
    except OSError as error:
        listening.close()
        raise RecipeError(f"--port {port}: {error.strerror}: choose another") from error
    return listening


def _until_started(server: Any, thread: threading.Thread) -> None:
    until = time.monotonic() + STARTED_WITHIN
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise OnecycleError("the server of the demo page does not start")
        time.sleep(0.01)
