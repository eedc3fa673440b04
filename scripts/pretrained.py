"""Put a finished run into the package, for `--pretrained NAME` and `--init NAME`.

usage: python scripts/pretrained.py RUN NAME

Says how far fp16 weights are from the run's own on test images, or on noise without its data.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import onecycle
from onecycle import machine
from onecycle.use import proof
from onecycle.use.classifier import trained
from onecycle.use.pretrained import pack


def main(run: str, name: str) -> None:
    """Pack `run`, and print what it became."""
    with tempfile.TemporaryDirectory() as made:
        onecycle.report(run, out=Path(made) / "page.html", card=Path(made) / "card.md")
        folder = pack(run, name, (Path(made) / "card.md").read_text())
    where = machine.choose("cpu", "fp32")
    seen = proof.sample(trained(run, where))
    found = trained(folder, where).probabilities(seen.pixels)
    other = int((found.argmax(1) != seen.expected.argmax(1)).sum())
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"{folder}: {size / 1e6:.2f} MB; on {seen.name} another class {other} times, largest "
        f"difference of a probability {np.abs(found - seen.expected).max():.1e}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
