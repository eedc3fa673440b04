"""What Python does to the world inside a block: files written, code run, memory taken."""

import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

# Audit events (PEP 578) of what no reader of a file has a reason to do.
ACTS = ("os.", "shutil.", "socket.", "subprocess.", "ctypes.", "pickle.", "exec", "compile")
HARMLESS = ("os.listdir", "os.scandir", "os.fwalk", "os.walk")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watchers = []


def _note(event, arguments):
    if not _watchers:
        return
    if event == "open":
        path, _, flags = arguments
        if flags & WRITES:
            _watchers[-1].append((event, str(path)))
    elif event == "exec" and arguments[0].co_filename.startswith(sys.base_prefix):
        pass  # Python imports a part of itself, as for a name in a rare encoding
    elif event.startswith(ACTS) and event not in HARMLESS:
        _watchers[-1].append((event, str(arguments[:1])))


@contextmanager
def acts():
    """The list of what is done inside the block; a hook can't be taken away, but it sleeps."""
    if not hasattr(sys, "_onecycle_watched"):
        sys.addaudithook(_note)
        sys._onecycle_watched = True
    seen = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


def reset_peak():
    """From here on `peak` counts anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak():
    """Bytes of memory that this process had at most since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024
