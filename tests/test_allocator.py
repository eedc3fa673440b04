"""Memory is kept from step to step, and given back at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onecycle import allocator

GLIBC = hasattr(allocator.ctypes.CDLL(None), "mallopt")
PAGE, LARGE = 4096, 33 * 2**20  # bytes; a bit more than glibc would ever keep by itself
CODE = """
import json, resource, sys
import torch
from onecycle.allocator import keeping

device, large = sys.argv[1], int(sys.argv[2])

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(large, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

found = {"before": faults(5)}
with keeping(device):
    faults(30)  # the first leave gaps in the heap that a few of the next are too large for
    with keeping(device):
        found["inner"] = faults(5)
    found["outer"] = faults(5)
    found["held"] = resident()
found["left"] = resident()
print(json.dumps(found))
"""


@pytest.fixture(params=["cpu", "cuda"])
def found(request):
    """Page faults and memory of a process that fills large tensors; on a CPU it keeps memory."""
    command = [sys.executable, "-c", CODE, request.param, str(LARGE)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return request.param, json.loads(ran.stdout)


@pytest.mark.skipif(not GLIBC, reason="this C library has no mallopt")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_is_cleared_once_and_given_back_at_the_end(found):
    device, seen = found
    again = 5 * LARGE / PAGE  # pages that five tensors take
    assert seen["before"] > 0.9 * again
    if device == "cpu":
        assert max(seen["inner"], seen["outer"]) < 0.5 * again
        assert seen["held"] - seen["left"] > 0.9 * LARGE
    else:  # there the memory of a CPU is left alone
        assert min(seen["inner"], seen["outer"]) > 0.9 * again


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    with allocator.keeping("cpu"):
        assert allocator._keeping == 0
