"""`onecycle report`."""

import json

import onecycle
from onecycle.cli.app import Json, Quiet, app


@app.command
def report(
    run: str,
    /,
    *,
    out: str | None = None,
    card: str | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write all there is to know about a finished run as one HTML page, RUN/report.html.

    The page holds all its pictures, no script, and asks nothing of the network.

    Parameters
    ----------
    run:
        The run folder.
    out:
        Another file for the page.
    card:
        A file for the page's model card as Markdown.
    quiet:
        Show the result only.
    json_:
        Print the page's path and size in bytes as one JSON object.
    """
    made = onecycle.report(run, out=out, card=card, quiet=quiet)
    if json_:
        print(json.dumps(made.to_dict()))
        return
    print(f"report          {made.path}  ({made.bytes / 1e6:.1f} MB)")
    if made.card:
        print(f"model card      {made.card}")
