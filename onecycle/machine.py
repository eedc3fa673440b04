"""Where and in which precision to compute: looked at, not assumed.

The choice is made once, said in the first line of a run and recorded in it.
"""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch

from onecycle import allocator
from onecycle.errors import RecipeError
from onecycle.ranks import local_world

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AMX = torch.cpu._is_amx_tile_supported()
PIECE_ON_CPU = 64  # images of PIECE_SIDE pixels computed at once so that activations stay in cache
PIECE_SIDE = 32
PIECE_BY_TILES = 256  # whose maps are in the cache anyway, a few at a time
PIECE_ON_ACCELERATOR = 1024
FP16_LOSS_SCALE = 1024.0
MOST_THREADS = 1024  # more than any machine's cores would only wait for each other
PROBE_SIZE = 1024  # side of the matrices whose product is timed
ROUNDS = 12  # of which the best counts
COPIED = 256 * 2**20  # bytes whose copying is timed: more than caches hold


@dataclass(frozen=True)
class Machine:
    """Device, precision and threads of a run, and why the precision was chosen."""

    device: str
    precision: str
    threads: int
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The type in which convolutions and matrix products are computed."""
        return DTYPES[self.precision]

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by, so that small fp16 gradients don't vanish."""
        return FP16_LOSS_SCALE if self.precision == "fp16" else 1.0

    @property
    def piece(self) -> int:
        """Images of 32 pixels to compute at once, where the recipe leaves that open."""
        if self.device != "cpu":
            return PIECE_ON_ACCELERATOR
        return PIECE_BY_TILES if self.precision == "bf16" and has_tiles() else PIECE_ON_CPU

    def at_once(self, side: int) -> int:
        """Images of `side` pixels to compute at once: as many pixels as of 32, at least one."""
        return max(1, self.piece * PIECE_SIDE**2 // side**2)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The block in which convolutions and products run in `dtype`."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    def autocast_updates(self) -> contextlib.AbstractContextManager[object]:
        """The block in which an optimizer's matrix products run in bf16, where the network's do.

        Not in fp16, in which products of gradients would vanish.
        """
        return contextlib.nullcontext() if self.precision == "fp16" else self.autocast()

    def in_fp32(self) -> "Machine":
        """The same machine computing in fp32."""
        return Machine(self.device, "fp32", self.threads, "fp32 asked for")

    def describe(self) -> str:
        """One line for people: what it computes on and how, and why in that precision."""
        name = f"{self.threads} threads" if self.device == "cpu" else device_name(self.device)
        way = f"{self.precision}, channels_last, about {self.piece} images at once"
        return f"{self.device} ({name}) in {way}; {self.precision}: {self.reason}"

    def to_dict(self) -> dict[str, object]:
        """Plain values for a run's record."""
        return {**asdict(self), "piece": self.piece, "memory_format": "channels_last"}


def choose(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Machine:
    """The machine to compute on.

    `device` is auto, cpu, cuda or mps; `precision` is auto, bf16, fp16 or fp32; `threads` counts
    CPU threads (if None all usable cores, divided among the processes that torchrun started).
    Sets torch's thread count, keeps fp32 from being TF32, lets threads share one heap, and takes
    denormal numbers for zero in this thread and those that it starts. Raises RecipeError for a
    device or precision that is not there.
    """
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise RecipeError(f"--threads {threads}: give 1 to {MOST_THREADS:,}")
    allocator.one_heap()
    torch.set_flush_denormal(True)  # a network with dead weights was judged 50 times as slowly
    torch.backends.cudnn.allow_tf32 = False  # or convolutions in fp32 would have 10 bits on a GPU
    torch.set_num_threads(threads or max(1, usable_cores() // local_world()))
    device = _choose_device(device)
    if precision not in ("auto", *DTYPES):
        raise RecipeError(f"--precision {precision}: choose auto, bf16, fp16 or fp32")
    if precision == "fp16" and device == "cpu":
        raise RecipeError("--precision fp16 is for GPUs: on a CPU choose bf16 or fp32")
    reason = f"{precision} asked for"
    if precision == "auto":
        precision, reason = _best_precision(device)
    return Machine(device, precision, torch.get_num_threads(), reason)


@cache
def has_tiles() -> bool:
    """Whether `onecycle.model.compiled` may use AMX here.

    The CPU has it, the system gives it to this process, and numba's compiler knows of it.
    """
    if not AMX or not torch.cpu._init_amx():
        return False
    from llvmlite import binding  # slow to import

    features = binding.get_host_cpu_features()
    return all(features.get(name) for name in ("amx-bf16", "amx-int8", "avx512bf16"))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: str) -> str:
    """The hardware behind `device`, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "cpu" and Path("/proc/cpuinfo").exists():
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def wait(device: str) -> None:
    """Return when `device` has done all that it was asked to do."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def matrix_rates(
    dtypes: Sequence[torch.dtype], device: str = "cpu", side: int = PROBE_SIZE
) -> list[float]:
    """Floating-point operations a second of a product of square matrices of each type, at best."""
    squares = [torch.randn(side, side, device=device).to(dtype) for dtype in dtypes]
    seconds = _best_seconds(device, [partial(torch.mm, square, square) for square in squares])
    return [2 * side**3 / each for each in seconds]


def bandwidth(device: str = "cpu") -> float:
    """Bytes a second, read and written, while memory is copied, at best."""
    here = torch.ones(COPIED, dtype=torch.uint8, device=device)
    there = torch.empty_like(here)
    (seconds,) = _best_seconds(device, [lambda: there.copy_(here)])
    return 2 * COPIED / seconds


def _best_seconds(device: str, works: Sequence[Callable[[], object]]) -> list[float]:
    """The least seconds that each of `works` takes on `device`, of ROUNDS after one to warm up.

    They take turns, because whatever else the machine does for a moment must not slow one of them
    alone: the comparison decides on a run's precision.
    """
    rounds = []
    for _ in range(1 + ROUNDS):
        seconds = []
        for work in works:
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            seconds.append(time.perf_counter() - start)
        rounds.append(seconds)
    return [min(each) for each in zip(*rounds[1:], strict=True)]


def _choose_device(device: str) -> str:
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in present.items() if there)
    if device not in present:
        raise RecipeError(f"--device {device}: choose auto, cpu, cuda or mps")
    if not present[device]:
        raise RecipeError(f"--device {device}: this PyTorch finds none here; use --device cpu")
    return device


def _best_precision(device: str) -> tuple[str, str]:
    if device == "cuda":
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16", "the GPU has it natively"
        return "fp16", f"the GPU has no native bf16; fixed loss scale {FP16_LOSS_SCALE:.0f}"
    if device == "mps":
        return "fp32", "the safe choice on mps"
    native = [
        name
        for name, test in (
            ("AMX", torch.cpu._is_amx_tile_supported),
            ("AVX512-BF16", torch.cpu._is_avx512_bf16_supported),
        )
        if test()
    ]
    if not native:
        return "fp32", "the CPU has no native bf16"
    fast, exact = matrix_rates((torch.bfloat16, torch.float32))
    gain = fast / exact
    if gain > 1.5:
        return "bf16", f"{gain:.1f} times the fp32 matrix rate here ({native[0]})"
    return "fp32", f"bf16 is only {gain:.1f} times as fast here"
