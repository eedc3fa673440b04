"""`onecycle evaluate`."""

import json
from typing import Any

import onecycle
from onecycle.cli.app import Json, Quiet, app

MOST_LISTED = 20  # classes up to which each has a line


@app.command
def evaluate(
    run: str,
    /,
    *,
    data: str | None = None,
    tta: str = "none",
    device: str = "auto",
    threads: int | None = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Judge a finished run: accuracy, confusions and calibration, with intervals.

    Tables and pictures are written into RUN/evaluation.

    Parameters
    ----------
    run:
        The run folder.
    data:
        Judge on the test part of this data instead; same classes and image size, forms as
        for 'onecycle train'.
    tta:
        Test-time augmentation: none, flip (2 views) or crop (6 views, moved by a pixel too).
    device:
        auto, cpu, cuda or mps, where something has to be predicted.
    threads:
        CPU threads; all cores by default.
    quiet:
        Show the result only.
    json_:
        Print the figures as one JSON object.
    """
    evaluation = onecycle.evaluate(run, data, tta=tta, device=device, threads=threads, quiet=quiet)
    if json_:
        print(json.dumps(evaluation.figures))
        return
    figures = evaluation.figures
    print(f"data            {figures['data']}, {figures['images']:,} {figures['part']} images")
    print(f"accuracy        {_percent(figures, 'accuracy')}  ({figures['tta_note']})")
    if "top5_accuracy" in figures:
        print(f"top-5 accuracy  {_percent(figures, 'top5_accuracy')}")
    print(f"loss            {figures['loss']:.4f}")
    print(f"calibration     {_calibration(figures['calibration'])}")
    for row in figures["most_confused"][:3]:
        share = _percent(row, "share")
        print(f"mistaken        {row['actual']} for {row['predicted']}: {row['images']:,}, {share}")
    _print_classes(figures["classes"])
    print(f"files           {evaluation.path}")


def _print_classes(rows: list[dict[str, Any]]) -> None:
    """A line for each class, or for the worst ones where there are many."""
    known = [row for row in rows if row["recall"] is not None]
    if len(rows) > MOST_LISTED:
        rows = sorted(known, key=lambda row: row["recall"])[:5]
        print("the five worst classes, others in per_class.csv:")
    width = max(len("class"), *(len(row["class"]) for row in rows))
    print(f"{'class':<{width}}  images  accuracy (recall)       precision      f1")
    for row in rows:
        precision, f1 = (
            "n/a" if row[key] is None else f"{row[key]:.2%}" for key in ("precision", "f1")
        )
        print(
            f"{row['class']:<{width}}  {row['support']:>6,}  {_percent(row, 'recall'):<23} "
            f"{precision:>9} {f1:>7}"
        )


def _percent(row: dict[str, Any], key: str) -> str:
    """A proportion with its interval."""
    if row[key] is None:
        return "n/a"
    return f"{row[key]:.2%} ({row[f'{key}_low']:.2%}-{row[f'{key}_high']:.2%})"


def _calibration(found: dict[str, Any]) -> str:
    """The expected error, and what a temperature makes of it."""
    text = f"expected error {found['ece']:.2%} in {found['bins']} equal bins"
    if found["temperature"] is None:
        return f"{text}; no temperature: {found['temperature_note']}"
    return (
        f"{text}; {found['ece_with_temperature']:.2%} at temperature "
        f"{found['temperature']:.3f} ({found['temperature_note']})"
    )
