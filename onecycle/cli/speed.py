"""`onecycle bench`."""

import json
from typing import Annotated

from cyclopts import Parameter

import onecycle
from onecycle.cli.app import Json, Quiet, app


@app.command
def bench(
    *,
    recipe: Annotated[list[str] | None, Parameter(negative=())] = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Measure how fast this machine is, and how fast each recipe trains on it, in a minute.

    Parameters
    ----------
    recipe:
        Measure this one, of those that 'onecycle recipes' lists or in a file; may be given several
        times. By default all that are listed.
    device:
        auto, cpu, cuda or mps.
    precision:
        auto (whatever the machine is fast at), bf16, fp16 or fp32.
    threads:
        CPU threads; all cores by default.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    made = onecycle.bench(recipe, device=device, precision=precision, threads=threads, quiet=quiet)
    print(json.dumps(made.to_dict()) if json_ else made)
