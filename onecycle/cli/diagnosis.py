"""`onecycle doctor`."""

import json

import onecycle
from onecycle.cli.app import Json, app


@app.command
def doctor(run: str | None = None, /, *, json_: Json = False) -> None:
    """Look at this machine, the data and the extras, and at a run: is all well?

    Lines that are not well are marked with ! and end in exit code 1.

    Parameters
    ----------
    run:
        A run folder: its checksums, recipe and journal are checked.
    json_:
        Print the lines as one JSON object.
    """
    found = onecycle.doctor(run)
    print(json.dumps(found.to_dict()) if json_ else found)
    if not found.ok:
        raise SystemExit(1)
