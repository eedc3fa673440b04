"""`onecycle demo`."""

import json
import signal
import sys

import onecycle
from onecycle.cli.app import Json, Quiet, app


@app.command
def demo(
    run: str,
    /,
    *,
    port: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Serve a page for trying a finished run on pictures, to this machine alone, until Ctrl-C.

    Parameters
    ----------
    run:
        The run folder.
    port:
        Where on 127.0.0.1; any free port by default.
    device:
        auto, cpu, cuda or mps.
    threads:
        CPU threads of the network; all cores by default.
    quiet:
        Show the address only.
    json_:
        Print the address as one JSON object.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job ignores it
    page = onecycle.demo(run, port=port, device=device, threads=threads, quiet=quiet)
    print(json.dumps({"url": page.url}) if json_ else f"open            {page.url}", flush=True)
    try:
        page.wait()
    except KeyboardInterrupt:  # how it is meant to end
        pass
    finally:
        page.close()
