"""Fill README.md's table from the summaries in results/ (`onecycle results RUN --publish results`).

usage: python scripts/readme.py
"""

from pathlib import Path

from onecycle import files
from onecycle.reporting import tables

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write the table of all that is published."""
    results = [files.read_json(path) for path in sorted((ROOT / "results").glob("*.json"))]
    readme = ROOT / "README.md"
    reported = files.read_json(ROOT / "docs" / "reported.json")
    files.write_bytes(readme, tables.fill(readme.read_text(), results, reported).encode())


if __name__ == "__main__":
    main()
