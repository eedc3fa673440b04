"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024), for convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onecycle.machine import has_tiles

# The quintic polynomial of Jordan's Newton-Schulz iteration: steepest at zero, where it matters.
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
EPS = 1e-7
# Rounding makes some eigenvalues of a Gram matrix negative, and an iteration multiplies them by the
# square of LINEAR. After more iterations than these (in fp32 more than a recipe may have) they are
# larger than all others.
IN_BF16 = 3


def one_by_one(work: Callable[[Any], None], items: list[Any]) -> None:
    """`work` on each of `items`."""
    for item in items:
        work(item)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal as a matrix (outputs, the rest).

    Before each step a parameter is scaled to the norm sqrt(outputs), as in
    KellerJordan/cifar10-airbench (`airbench94_muon.py`), so that the rate says by what share of
    itself it changes; weight decay would have no effect. `momentum` is 0 to 1; `iterations`, one to
    seven, are those of Newton-Schulz, in fp32 if there are more than three. If `found_inf`, a
    scalar on the device, is 1, a step changes nothing.
    """

    def __init__(self, params: Any, lr: float, *, momentum: float, iterations: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations})
        self.found_inf = torch.zeros(())

    def step(  # type: ignore[override]
        self,
        closure: Callable[[], float] | None = None,
        each: Callable[[Callable[[Any], None], list[Any]], object] = one_by_one,
    ) -> None:
        """Move every parameter that has a gradient; `each` applies a function to all of a list.

        They don't depend on one another, so `each` may do that in several threads.
        """
        if self.found_inf.device.type == "cpu" and self.found_inf:
            return
        moves = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for parameter, _, _ in moves:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        kind = moves[0][0].device.type if moves else "cpu"
        products = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        # The longest first, so that no thread is left with one at the end.
        moves.sort(key=lambda move: -move[0].numel())
        each(lambda move: self._move(move[0], move[1], move[2], products), moves)

    @torch.no_grad()
    def _move(
        self,
        parameter: Tensor,
        gradient: Tensor,
        group: dict[str, Any],
        products: torch.dtype | None,
    ) -> None:
        """Move `parameter`; matrices are multiplied in `products`, by default their own type."""
        velocity = self.state[parameter]["momentum_buffer"]
        momentum, rate, iterations = group["momentum"], group["lr"], group["iterations"]
        if iterations > IN_BF16 and products is not None:
            with torch.autocast(parameter.device.type, enabled=False):
                self._move(parameter, gradient, group, None)
            return
        if _by_tiles(parameter, velocity, products):
            from onecycle.model.compiled import newton_schulz  # slow to import

            # As they lie in memory, channels last: a matrix's columns may have any order.
            moving = parameter, gradient.contiguous(memory_format=torch.channels_last), velocity
            terms = LINEAR, CUBIC, QUINTIC
            newton_schulz.move(*moving, momentum, rate, terms, iterations, EPS)
            # What torch doesn't see it can't tell those who keep something made of them.
            torch.autograd.graph.increment_version([parameter, velocity])
            return
        # In a step that changes nothing, 1 and 0 take the place of what would change something.
        stays = self.found_inf.to(parameter.device).bool()
        if parameter.device.type != "cpu":  # where one would have to wait for the answer
            gradient = torch.where(stays, 0.0, gradient)
        torch.addcmul(gradient, velocity, torch.where(stays, 1.0, momentum), out=velocity)
        scale = torch.where(stays, 1.0, len(parameter) ** 0.5 / parameter.norm())
        ahead = gradient.add(velocity, alpha=momentum)
        ahead = ahead.movedim(1, -1)
        matrix = ahead.flatten(1).to(products)
        back = orthogonal(matrix, iterations, -torch.where(stays, 0.0, rate))
        torch.addcmul(back.view_as(ahead).movedim(-1, 1), parameter, scale, out=parameter)


def _by_tiles(parameter: Tensor, velocity: Tensor, products: torch.dtype | None) -> bool:
    """Whether `newton_schulz` can move the two in place, here and in that type."""
    here = parameter.device.type == "cpu" and products is torch.bfloat16
    if not here or parameter.ndim != 4 or parameter.dtype is not torch.float32:
        return False
    rows = len(parameter)
    wide = rows % 32 == 0 and rows <= parameter.numel() // rows
    both = parameter, velocity
    lie = all(each.is_contiguous(memory_format=torch.channels_last) for each in both)
    return wide and lie and has_tiles()


def orthogonal(matrix: Tensor, iterations: int, size: Tensor | float = 1.0) -> Tensor:
    """`matrix` (rows, columns) with all its singular values brought near `size`.

    Newton-Schulz multiplies X, of the norm 1, by a polynomial of its Gram matrix XX' over and over.
    All those polynomials commute, so they are multiplied up in the small Gram matrix first, and the
    large matrix takes part in two products only, whatever the number of iterations.
    """
    if matrix.shape[0] > matrix.shape[1]:
        turned: Tensor = orthogonal(matrix.T, iterations, size).T
        return turned
    gram = matrix @ matrix.T
    shrink = 1 / (gram.trace().sqrt() + EPS)
    gram = gram * shrink.square()
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    total = identity
    for iteration in range(iterations):
        start = torch.add(LINEAR * identity, gram, alpha=CUBIC)
        polynomial = torch.addmm(start, gram, gram, alpha=QUINTIC)
        total = polynomial @ total if iteration else polynomial
        if iteration < iterations - 1:  # after the last nobody asks for it
            gram = polynomial @ gram @ polynomial
    result: Tensor = (total * (shrink * size)) @ matrix
    return result
