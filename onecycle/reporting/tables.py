"""Compact summaries of runs, and the tables that the README shows of them."""

from pathlib import Path
from typing import Any

from onecycle import files
from onecycle.run.record import ENVIRONMENT, SUMMARY

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def compact(run: Path) -> dict[str, Any]:
    """What `results/` keeps of a finished run: its summary, hardware and versions."""
    summary: dict[str, Any] = files.read_json(run / SUMMARY)
    environment = files.read_json(run / ENVIRONMENT)
    summary["run"] = run.name
    kept = ("hardware", "python", "versions", "val_fraction")
    return {**summary, **{key: environment[key] for key in kept}}


def markdown(results: list[dict[str, Any]]) -> str:
    """A table of the test accuracies in `results`, without test-time augmentation."""
    rows = [
        "| recipe | data | epochs | test % | train % | seconds | machine | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda each: (each["data"], each["recipe"], each["seed"])):
        machine = f"{result['threads']} threads of {result['hardware']}, {result['precision']}"
        rows.append(
            f"| {result['recipe']} | {result['data']} | {result['epochs']:g} "
            f"| {100 * result['test_accuracy']:.2f} | {100 * result['train_accuracy']:.2f} "
            f"| {result['seconds']:,.0f} | {machine} | {result['parameters']:,} |"
        )
    return "\n".join(rows)


def fill(text: str, results: list[dict[str, Any]]) -> str:
    """`text` with what stands between the two markers replaced by the table of `results`."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}"
