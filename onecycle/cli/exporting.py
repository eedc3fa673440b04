"""`onecycle export`."""

import json
from typing import Literal

import onecycle
from onecycle.cli.app import Json, Quiet, app


@app.command
def export(
    run: str,
    /,
    *,
    format: Literal["onnx", "pt2", "safetensors"] = "onnx",
    out: str | None = None,
    threads: int | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write a finished run as one file that other programs can use.

    uint8 pixels in, probabilities out. It is compared with the run before it is written.

    Parameters
    ----------
    run:
        The run folder.
    format:
        onnx (for ONNX Runtime), pt2 (for torch.export) or safetensors (the weights alone).
    out:
        The file; by default RUN/export/model.FORMAT. One that is there is replaced.
    threads:
        CPU threads that the file is checked and timed with; all cores by default.
    quiet:
        Show the result only.
    json_:
        Print the result as one JSON object.
    """
    made = onecycle.export(run, format, out, threads=threads, quiet=quiet)
    if json_:
        print(json.dumps(made.to_dict()))
        return
    print(f"file            {made.path}  ({made.bytes / 1e6:.2f} MB)")
    print(f"in              {made.metadata['input']}")
    print(f"out             {made.metadata['output']}")
    print(f"probabilities   {made.metadata['calibration']}")
    print(
        f"compared        on {made.checked_on}: no other class, largest difference of a "
        f"probability {made.largest_difference:.1e}"
    )
    for name, times in made.latency.items():
        each = ", ".join(f"batch {count}: {value:.2f} ms" for count, value in times.items())
        print(f"{name:<15} {each}  (medians, {made.threads} CPU threads)")
