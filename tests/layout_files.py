"""Pictures by their names in folders, and CSV lists of them."""

import csv
import io

from picture_files import encoded, noise

KINDS = ("cat", "dog", "emu")


def write(root, names):
    """A picture of its own for each of `names` below `root`."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(noise(seed=number)))
    return root


def flat(count=10, kinds=KINDS):
    return [f"{kind}/{i:03}.png" for kind in kinds for i in range(count)]


def table(path, rows, columns=("path", "label", "split")):
    """A CSV of `rows`, written by Python's own writer."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([columns, *rows])
    path.write_text(text.getvalue())
    return path
