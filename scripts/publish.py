"""Keep compact summaries of finished runs in results/, and fill README.md's table from them.

usage: python scripts/publish.py [RUN ...]
"""

import sys
from pathlib import Path

from onecycle import files
from onecycle.report import tables

ROOT = Path(__file__).resolve().parent.parent


def main(runs: list[Path]) -> None:
    """Publish `runs`, then write the table of all that is published."""
    for run in runs:
        files.write_json(ROOT / "results" / f"{run.resolve().name}.json", tables.compact(run))
    results = [files.read_json(path) for path in sorted((ROOT / "results").glob("*.json"))]
    readme = ROOT / "README.md"
    files.write_bytes(readme, tables.fill(readme.read_text(), results).encode())


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
