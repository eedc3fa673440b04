"""Several processes that train one model: who I am among them, and what they tell each other.

`torchrun` starts them and says so in environment variables; the engine is torch.distributed, NCCL
between GPUs and gloo between CPUs. Code elsewhere holds a `Ranks` and asks it; a process alone has
`ALONE`, to which every exchange is nothing.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from onecycle.errors import OnecycleError, RecipeError, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number `rank` (from 0) among `world` processes."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` things in a row are this process's; the shares differ by one at most."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; one message for all of them."""
        if self.world == 1:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, mine: Tensor, count: int) -> Tensor:
        """All `count` rows, in order, of which `mine` are those of this process's `share`."""
        if self.world == 1:
            return mine
        rows = mine.new_empty((count, *mine.shape[1:]))
        for rank in range(self.world):
            part = rows[Ranks(rank, self.world).share(count)]
            if rank == self.rank:
                part.copy_(mine)
            if len(part):
                dist.broadcast(part, src=rank)
        return rows

    def largest(self, number: int) -> int:
        """The largest `number` of any process. All must ask at the same time."""
        if self.world == 1:
            return number
        told = torch.tensor([number], device=_device())
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def agree(self, goes_on: bool) -> None:
        """RecipeError, for all of them, unless all go on with a run, or none does."""
        if self.largest(int(goes_on)) and self.largest(int(not goes_on)):
            raise RecipeError(
                "some of the processes see a checkpoint in the run folder, and some do not: "
                "give --out on a disk that all nodes can read"
            )

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` gives: the first process does it before the others begin."""
        if self.world == 1:
            return work()
        if self.first:
            try:
                return work()
            finally:
                dist.barrier()
        dist.barrier()
        return work()

    def leave(self) -> None:
        """Take leave of the other processes."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Ranks()
# While one decodes or downloads a data set, the others wait; of a death torchrun tells them.
PATIENCE = timedelta(days=1)


def join(device: str) -> Ranks:
    """This process among those that torchrun started, or `ALONE` if it started none.

    Raises RecipeError if there are more processes on a machine than GPUs.
    """
    if world() == 1:
        return ALONE
    if device == "cuda":
        local = _told("LOCAL_RANK")
        if local >= torch.cuda.device_count():
            raise RecipeError(
                f"torchrun started more processes than the {torch.cuda.device_count()} GPUs here: "
                "give --nproc-per-node that number"
            )
        torch.cuda.set_device(local)
    ranks = Ranks(_told("RANK"), world())
    if not dist.is_initialized():
        store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world))
        # Restarted processes meet in the same store: they must not read the addresses of the dead.
        store = PrefixStore(f"start-{restarts()}", store)
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(
            backend, timeout=PATIENCE, store=store, rank=ranks.rank, world_size=ranks.world
        )
        # Where an error ends the process before its run: a group that is left open can abort it.
        atexit.register(ranks.leave)
    return ranks


@contextmanager
def loss_of_others() -> Iterator[None]:
    """Turn what torch.distributed raises when another process is gone into an OnecycleError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise OnecycleError(
                f"another process of this run is gone ({one_line(error)[:120]}): see its message; "
                "start all of them again with --resume"
            ) from error
        raise


def world() -> int:
    """How many processes torchrun started, 1 if none."""
    return _told("WORLD_SIZE", 1)


def prints() -> bool:
    """Whether results are printed here: by one of the processes that torchrun started."""
    return world() == 1 or _told("RANK") == 0


def restarts() -> int:
    """How many times torchrun has started these processes anew after a failure."""
    return _told("TORCHELASTIC_RESTART_COUNT", 0)


def local_world() -> int:
    """Processes that share this machine's cores."""
    return _told("LOCAL_WORLD_SIZE", 1)


def _told(name: str, alone: int | None = None) -> int:
    """The number that torchrun gave as `name`, or `alone` if it started nothing. RecipeError."""
    given = os.environ.get(name, "" if alone is None else str(alone))
    if not (given.isascii() and given.isdigit()):
        raise RecipeError(
            f"the environment's {name}={given!a} is not what torchrun sets: start with torchrun, "
            "or unset WORLD_SIZE"
        )
    return int(given)


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
