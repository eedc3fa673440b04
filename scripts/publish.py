"""Keep summaries and curves of finished runs, and fill README.md's table from all that are kept.

usage: python scripts/publish.py [RUN ...]
"""

import sys
from pathlib import Path

from onecycle import files
from onecycle.reporting import tables
from onecycle.run.record import CURVES

ROOT = Path(__file__).resolve().parent.parent


def main(runs: list[Path]) -> None:
    """Publish `runs`, then write the table of all that is published."""
    for run in runs:
        summary = tables.compact(run)
        files.write_json(ROOT / "results" / f"{run.resolve().name}.json", summary)
        picture = ROOT / "docs" / "pictures" / f"{summary['recipe']}.png"
        files.write_bytes(picture, (run / CURVES).read_bytes())
    results = [files.read_json(path) for path in sorted((ROOT / "results").glob("*.json"))]
    readme = ROOT / "README.md"
    files.write_bytes(readme, tables.fill(readme.read_text(), results).encode())


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
