"""Two commands in turn, A B A B, and how many times as long the first one takes.

A turn is a process of its own. What is compared is its wall time, or the number that a regular
expression finds in what it prints (the last match, its first group if it has one); so a peer's own
script says its own seconds. The result is the geometric mean of the turns' ratios A / B with its
95 % interval (Student's t over the logarithms of the pairs), and with `--accuracy` the difference
A - B over the pairs. A command is split like a shell's line but not given to one: for a peer that
wants its own folder write "sh -c 'cd PEER && python train.py'". `{turn}` in a command becomes the
number of the turn, from 0, to be used as a seed.

An expression may be given for both commands or for each; an accuracy above 1 is in per cent.

usage: python bench/side_by_side.py A B [--turns 5] [--warm-up 1] [--seconds REGEX [REGEX]]
           [--accuracy REGEX [REGEX]] [--names ours theirs]
"""

import argparse
import json
import math
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from onecycle import machine
from onecycle.evaluation.compare import spread


@dataclass(frozen=True)
class Turn:
    """What one process took, and the fraction that it reached."""

    seconds: float
    accuracy: float | None


class Failed(Exception):
    """A command that failed, or didn't print what was looked for."""


def take(
    command: str, number: int, seconds: str | None = None, accuracy: str | None = None
) -> Turn:
    """Run `command`, and time it or read its figures with the two expressions. Raises Failed."""
    words = shlex.split(command.replace("{turn}", str(number)))
    start = time.perf_counter()
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise Failed(f"{words[0]}: {error.strerror}") from error
    spent = time.perf_counter() - start
    if done.returncode:
        last = (done.stdout.strip().splitlines() or [""])[-1]
        raise Failed(f"{shlex.join(words)}: exit code {done.returncode}: {last}")
    if seconds:
        spent = found(seconds, done.stdout)
    if not spent > 0:
        raise Failed(f"{seconds!r} finds {spent:g} seconds, of which there is no ratio")
    reached = found(accuracy, done.stdout) if accuracy else None
    return Turn(spent, reached / 100 if reached and reached > 1 else reached)


def found(expression: str, printed: str) -> float:
    """The number of the last match of `expression` in `printed`. Raises Failed."""
    matches = list(re.finditer(expression, printed))
    if not matches:
        raise Failed(f"nothing printed matches {expression!r}; last: {printed.strip()[-200:]!r}")
    text = matches[-1].group(1 if matches[-1].re.groups else 0)
    try:
        return float(text.replace(",", "").rstrip("%"))
    except ValueError as error:
        raise Failed(f"{expression!r} finds {text!r}, which is no number") from error


def compared(first: list[Turn], second: list[Turn]) -> dict[str, Any]:
    """The ratio of the seconds, and the difference of the accuracies, over pairs of turns."""
    pairs = list(zip(first, second, strict=True))
    logs = spread([math.log(a.seconds / b.seconds) for a, b in pairs])
    result: dict[str, Any] = {
        "ratio": {
            "n": logs.n,
            "mean": math.exp(logs.mean),
            "low": None if logs.low is None else math.exp(logs.low),
            "high": None if logs.high is None else math.exp(logs.high),
        }
    }
    gaps = [a.accuracy - b.accuracy for a, b in pairs if None not in (a.accuracy, b.accuracy)]
    if gaps:
        result["accuracy_difference"] = asdict(spread(gaps))
    return result


def alternate(
    commands: list[str],
    turns: int,
    warm_up: int,
    seconds: list[str] | None = None,
    accuracy: list[str] | None = None,
) -> list[list[Turn]]:
    """The turns of each command, those that warm up left out."""
    taken: list[list[Turn]] = [[] for _ in commands]
    for number in range(warm_up + turns):
        for i, command in enumerate(commands):
            # The last of one or two expressions is the second command's.
            looked_for = [each and each[min(i, len(each) - 1)] for each in (seconds, accuracy)]
            turn = take(command, max(0, number - warm_up), *looked_for)
            print(
                f"{'warm-up' if number < warm_up else number - warm_up}  {'AB'[i]}  "
                f"{turn.seconds:.3f} s  {'' if turn.accuracy is None else turn.accuracy}",
                file=sys.stderr,
                flush=True,
            )
            if number >= warm_up:
                taken[i].append(turn)
    return taken


def main(arguments: list[str] | None = None) -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("commands", nargs=2, metavar="COMMAND")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="turns of both before any counts")
    parser.add_argument("--seconds", nargs="+", help="expression of the seconds, or one for each")
    parser.add_argument("--accuracy", nargs="+", help="expression of the accuracy, or one for each")
    parser.add_argument("--names", nargs=2, default=["A", "B"])
    options = parser.parse_args(arguments)
    if options.turns < 1 or options.warm_up < 0:
        parser.error("--turns: at least 1; --warm-up: at least 0")
    try:
        taken = alternate(
            options.commands, options.turns, options.warm_up, options.seconds, options.accuracy
        )
    except (Failed, re.error) as error:
        raise SystemExit(f"side_by_side: {error}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = {
        "names": options.names,
        "commands": options.commands,
        "hardware": machine.device_name(device),
        "turns": [[asdict(turn) for turn in turns] for turns in taken],
        **compared(*taken),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
