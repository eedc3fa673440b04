"""What the long forms counted, kept where `--figures FILE` says.

A test says so by `record_property("promise", ...)` and a property for each figure.
"""

import json
import platform
import time
from importlib import metadata
from pathlib import Path

from onecycle import machine

ROWS, FAILED = [], set()


def pytest_addoption(parser):
    parser.addoption("--figures", type=Path, help="a JSON that is brought up to date")


def pytest_runtest_logreport(report):
    figures = dict(report.user_properties)
    if report.failed:
        FAILED.add(report.nodeid)
    elif report.when == "call" and "promise" in figures:
        row = {"promise": figures.pop("promise"), "test": report.nodeid, "figures": figures}
        ROWS.append(row | {"seconds": round(report.duration, 1)})


def pytest_sessionfinish(session):
    path = session.config.getoption("--figures")
    if path is None:
        return
    kept = json.loads(path.read_text()) if path.exists() else []
    new = {row["test"] for row in ROWS} | FAILED  # what fails loses its row
    here = {
        "machine": f"{machine.device_name('cpu')}, {machine.usable_cores()} cores",
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "date": time.strftime("%Y-%m-%d"),
    }
    rows = [row for row in kept if row["test"] not in new] + [row | here for row in ROWS]
    rows.sort(key=lambda row: row["test"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
