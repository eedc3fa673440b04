"""Ghost groups side by side on a CPU: each core computes whole groups, instead of a part of each.

Cores that share every convolution wait for one another at the end of each; those that have groups
of their own meet once a step.
"""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from onecycle.machine import Machine
from onecycle.model.convolution import Conv3x3
from onecycle.model.layers import Statistics, group_count, norms
from onecycle.ranks import ALONE, Ranks
from onecycle.recipe.schema import Recipe

T = TypeVar("T")


class Lanes:
    """Threads that each compute gradients with a model of their own; a context manager.

    The models have the same weights in the same memory, and gradients and statistics of their own.
    The first is the model itself; `add_up` adds what the others found to its, in their order, so
    that the result does not depend on which thread is done first.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, machine: Machine, ranks: Ranks) -> None:
        count = number(recipe, machine, ranks)
        self.models = [model, *(_twin(model) for _ in range(count - 1))]
        self._statistics = [Statistics(each) for each in self.models]
        self.statistics = self._statistics[0]
        # The largest first, so that what lanes add up is about as much.
        every = list(zip(*(each.parameters() for each in self.models), strict=True))
        every.sort(key=lambda them: -them[0].numel())
        self._shares = [every[lane::count] for lane in range(count)]
        self._pool = None
        if count > 1:
            threads = (machine.threads // count,)
            self._pool = ThreadPoolExecutor(count, "lane", torch.set_num_threads, threads)

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.shutdown()

    def run(self, work: Callable[[nn.Module, Ranks], T]) -> list[T]:
        """What `work` gives in each lane, for its model and its place among the lanes.

        Raises what `work` raises, when all have ended.
        """
        if self._pool is None:
            return [work(self.models[0], ALONE)]
        count = len(self.models)
        futures = [
            self._pool.submit(work, model, Ranks(lane, count))
            for lane, model in enumerate(self.models)
        ]
        wait(futures)
        return [future.result() for future in futures]

    @torch.no_grad()
    def add_up(self) -> Tensor:
        """Leave the gradients and the step's statistics of all lanes to the model; their norm."""
        norms_of_shares = self.each(_add_gradients, self._shares)
        for others in self._statistics[1:]:
            self.statistics.sums.add_(others.sums)
            others.sums.zero_()
        return get_total_norm([*norms_of_shares, self.statistics.sums])

    def each(self, work: Callable[[Any], T], items: list[Any]) -> list[T]:
        """`work` of each of `items`, which don't depend on one another, in the lanes' threads."""
        return list(map(work, items) if self._pool is None else self._pool.map(work, items))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, the calling thread computes with as many threads as a lane.

        Those that it shares an operation with go on asking for more for a while, and take the
        lanes' cores.
        """
        threads = torch.get_num_threads()
        if self._pool:
            torch.set_num_threads(max(1, threads // len(self.models)))
        try:
            yield
        finally:
            if self._pool:
                torch.set_num_threads(threads)


def number(recipe: Recipe, machine: Machine, ranks: Ranks) -> int:
    """How many lanes a process computes in: as many as share out both its threads and groups.

    One, if there is nothing to gain or the groups depend on each other: on an accelerator, where
    several processes train, and with dropout, which draws from the process's random state.
    """
    if machine.device != "cpu" or ranks.world > 1 or recipe.model.dropout:
        return 1
    groups = group_count(recipe.batch_size, recipe.ghost_batch)
    return max(
        count
        for count in range(1, min(groups, machine.threads) + 1)
        if machine.threads % count == 0
    )


def _twin(model: nn.Module) -> nn.Module:
    """A copy of `model` whose parameters and running statistics lie in the same memory."""
    twin = copy.deepcopy(model)
    for ours, its in zip(model.parameters(), twin.parameters(), strict=True):
        its.data = ours.data
        its.grad = None
    for conv, its_conv in zip(_convolutions(model), _convolutions(twin), strict=True):
        its_conv.made = conv.made
    for here, there in zip(norms(model), norms(twin), strict=True):
        there.running_mean, there.running_var = here.running_mean, here.running_var
    return twin


def _convolutions(model: nn.Module) -> list[Conv3x3]:
    """The convolutions of `model` that keep what they make of their weights."""
    return [module for module in model.modules() if isinstance(module, Conv3x3)]


@torch.no_grad()
def _add_gradients(every: list[tuple[nn.Parameter, ...]]) -> Tensor:
    """Add the others' gradients to those of the first of each, and forget them; the sums' norm."""
    sums = []
    for ours, *others in every:
        for its in others:
            if its.grad is not None:
                ours.grad = its.grad if ours.grad is None else ours.grad.add_(its.grad)
                its.grad = None
        if ours.grad is not None:
            sums.append(ours.grad)
    return get_total_norm(sums)
