"""All that is to be measured on a GPU, by one command; what is done already is not done again.

1. `onecycle bench`: the machine, and every recipe's images/s.
2. The reference recipes in full, several seeds each, published as summaries.
3. `--ours` by the clock of `to_accuracy.py`, six views of each test image included, against each
   peer's own script, alternating, with the ratio of the seconds.

A peer is a name, the command that runs it once, and the regular expressions of its seconds and its
accuracy in what it prints. Nothing of a peer is shipped: fetch its repository, and have its command
run it as it is, once a start, on the same data. For instance,
with the paths and expressions that fit your copies:

    python bench/gpu.py --data cifar10 --out runs/gpu --results results \\
        --peer hiverge "sh -c 'cd PATH && python SCRIPT'" 'time: ([0-9.]+)' 'accuracy: ([0-9.]+)' \\
        --peer airbench94_muon "python PATH/airbench94_muon.py" EXPRESSION EXPRESSION

usage: python bench/gpu.py --data DATA --out DIR --results DIR [--recipes NAME ...] [--seeds 3]
           [--epochs N] [--set KEY=VALUE ...] [--ours RECIPE] [--turns 20] [--peer NAME COMMAND
           SECONDS ACCURACY ...] [--device auto]
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from onecycle import files

REFERENCES = [
    f"davidnet{kind}" for kind in ("", "-random-cutout", "-sgd", "-dropout", "-reflect", "-gap")
]
ONECYCLE = [sys.executable, "-m", "onecycle"]
HERE = Path(__file__).resolve().parent
SIDE_BY_SIDE = [sys.executable, str(HERE / "side_by_side.py")]
TO_ACCURACY = [sys.executable, str(HERE / "to_accuracy.py")]
WARM_UP = 30  # steps in which an accelerator compiles and picks its kernels
SECONDS = r'"seconds": ([0-9.]+)'
ACCURACY = r'"test_accuracy": ([0-9.]+)'


def asked(words: list[str], where: Path | None = None) -> str:
    """What the command `words` prints on stdout; ends with its exit code if it fails."""
    print("+", " ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=where)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def machine_speed(options: argparse.Namespace) -> None:
    """Write `gpu/bench.json`."""
    path = options.results / "gpu" / "bench.json"
    if not path.exists():
        recipes = [word for name in options.recipes for word in ("--recipe", name)]
        found = asked([*ONECYCLE, "bench", "--json", "--device", options.device, *recipes])
        files.write_json(path, json.loads(found))


def references(options: argparse.Namespace) -> None:
    """Train each recipe with each seed, and publish their summaries."""
    for name in options.recipes:
        folder = options.out / name
        if (folder / "seeds.json").exists():
            asked([*ONECYCLE, "train", "--resume", str(folder)])
            continue
        start = [*ONECYCLE, "train", "--recipe", name, "--seeds", str(options.seeds)]
        asked([*start, "--out", str(folder), *common(options)])
    folders = [str(options.out / name) for name in options.recipes]
    asked([*ONECYCLE, "results", *folders, "--publish", str(options.results)])


def common(options: argparse.Namespace) -> list[str]:
    """What every training of ours is given."""
    changes = [word for change in options.set for word in ("--set", change)]
    length = [] if options.epochs is None else ["--epochs", str(options.epochs)]
    return ["--data", options.data, "--device", options.device, *length, *changes]


def against(options: argparse.Namespace, peer: list[str]) -> None:
    """Write `gpu/<peer>.json`: ours and the peer's command in turn."""
    name, command, seconds, accuracy = peer
    path = options.results / "gpu" / f"{name}.json"
    if path.exists():
        return
    ours = [*TO_ACCURACY, "--recipe", options.ours, "--seed", "{turn}", "--warm-up", str(WARM_UP)]
    words = [*ours, *common(options)]
    found = asked(
        [
            *(*SIDE_BY_SIDE, shlex.join(words), command),
            *("--turns", str(options.turns), "--names", options.ours, name),
            *("--seconds", SECONDS, seconds, "--accuracy", ACCURACY, accuracy),
        ],
        files.make_folder(options.out / "side-by-side"),
    )
    files.write_json(path, json.loads(found))


def main(arguments: list[str] | None = None) -> None:
    """Do what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=REFERENCES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--set", nargs="+", default=[])
    parser.add_argument("--ours", default="fast")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--peer", nargs=4, action="append", default=[])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    options.out, options.results = options.out.resolve(), options.results.resolve()
    if Path(options.data).exists():  # another folder is worked in later
        options.data = str(Path(options.data).resolve())
    files.make_folder(options.results / "gpu")
    machine_speed(options)
    references(options)
    for peer in options.peer:
        against(options, peer)


if __name__ == "__main__":
    main()
