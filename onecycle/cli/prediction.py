"""`onecycle predict`."""

import csv
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import onecycle
from onecycle.cli.app import Json, Quiet, app
from onecycle.errors import DataError, RecipeError, escaped

if TYPE_CHECKING:
    from onecycle.use.prediction import Prediction

WIDEST = 24  # characters of a class name up to which columns are aligned


@app.command
def predict(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],  # for the `-` of stdin
    pretrained: str | None = None,
    top: int = 3,
    device: str = "auto",
    threads: int | None = None,
    quiet: Quiet = False,
    csv_: Annotated[bool, Parameter(name="--csv", negative=())] = False,
    json_: Json = False,
) -> None:
    """Say what is on pictures, by a finished run.

    A file that can't be used is named on stderr; the rest go on, and the exit code is 3.

    Parameters
    ----------
    images:
        The run folder (not with --pretrained), then image files, and folders of which every image
        is taken; - reads names from stdin, one a line.
    pretrained:
        Take this network, which comes with the package, instead of a run.
    top:
        How many of the likeliest classes to tell.
    device:
        auto, cpu, cuda or mps.
    threads:
        CPU threads; all cores by default.
    quiet:
        Show the result only.
    csv_:
        Print CSV.
    json_:
        Print a JSON list with an object for each image.
    """
    for name in images:
        if name.startswith("-") and name != "-":
            raise RecipeError(f"{name}: no such option (of a file of that name, write ./{name})")
    run = None if pretrained or not images else images[0]
    pictures = images if pretrained else images[1:]
    if not pictures:
        first = "" if pretrained else "a run folder (or --pretrained NAME), then "
        raise RecipeError(f"predict: name {first}image files or folders, or - for names on stdin")
    if csv_ and json_:
        raise RecipeError("--csv and --json: choose one")
    from onecycle.run import reopen
    from onecycle.use.pretrained import chosen

    warnings.filterwarnings("ignore", module="PIL")  # what matters is in each file's problem
    options: Any = {"top": top, "device": device, "threads": threads, "quiet": quiet}
    found = onecycle.predict(run, _named(pictures), pretrained=pretrained, **options)
    bad: list[str] = []
    good = _good(found, bad)
    if json_:
        _print_json(good)
    elif csv_:
        _print_csv(good)
    else:
        _print_table(good, reopen.images(chosen(run, pretrained)).classes)
    if bad:
        raise DataError(f"images that can't be used: {len(bad):,}, named above")


def _named(images: Iterable[str]) -> Iterator[str]:
    """The names that were given, those on stdin in the place of `-`."""
    for name in images:
        if name != "-":
            yield name
            continue
        if sys.stdin is None:
            raise RecipeError("-: there is no standard input to read names from")
        for line in sys.stdin.buffer:
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                yield name


def _good(found: "Iterable[Prediction]", bad: list[str]) -> "Iterator[Prediction]":
    """The predictions that there are; the other files are told on stderr and put into `bad`."""
    for one in found:
        if one.problem:
            bad.append(one.file)
            print(f"onecycle: {escaped(one.file)}: {escaped(one.problem)}", file=sys.stderr)
        else:
            yield one


def _print_json(found: "Iterable[Prediction]") -> None:
    before = "["
    for one in found:
        print(before, json.dumps(one.to_dict()), sep="\n", end="")
        before = ","
    print("\n]" if before == "," else "[]")


def _print_csv(found: "Iterable[Prediction]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, one in enumerate(found):
        if not number:
            ranks = ["", *(f"_{i}" for i in range(2, len(one.top) + 1))]
            columns = [f"{key}{rank}" for rank in ranks for key in ("label", "probability")]
            writer.writerow(["file", *columns, "calibrated"])
        cells = [cell for name, share in one.top for cell in (escaped(name), share)]
        writer.writerow([escaped(one.file), *cells, one.calibrated])


def _print_table(found: "Iterable[Prediction]", classes: tuple[str, ...]) -> None:
    """A line a file, as soon as it is known; so the file, of any length, comes last."""
    width = min(WIDEST, max(len(escaped(name)) for name in classes))
    for number, one in enumerate(found):
        if not number:
            print(f"probabilities are {'' if one.calibrated else 'not '}calibrated")
        cells = [f"{share:7.2%} {escaped(name):<{width}}" for name, share in one.top]
        print(*cells, escaped(one.file), sep="  ")
