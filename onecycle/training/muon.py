"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024), for convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The quintic polynomial of Jordan's Newton-Schulz iteration: steepest at zero, where it matters.
LINEAR, CUBIC, QUINTIC = 3.4445, -4.7750, 2.0315
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal as a matrix (outputs, the rest).

    Before each step a parameter is scaled to the norm sqrt(outputs), as in
    KellerJordan/cifar10-airbench (`airbench94_muon.py`), so that the rate says by what share of
    itself it changes; weight decay would have no effect. `momentum` is 0 to 1; `iterations` are
    those of Newton-Schulz. If `found_inf`, a scalar on the device, is 1, a step changes nothing.
    """

    def __init__(self, params: Any, lr: float, *, momentum: float, iterations: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "iterations": iterations})
        self.found_inf = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity, momentum, rate = state["momentum_buffer"], group["momentum"], group["lr"]
        # In a step that changes nothing, 1 and 0 take the place of what would change something.
        stays = self.found_inf.to(parameter.device).bool()
        gradient = torch.where(stays, 0.0, gradient)
        torch.addcmul(gradient, velocity, torch.where(stays, 1.0, momentum), out=velocity)
        scale = torch.where(stays, 1.0, len(parameter) ** 0.5 / parameter.norm())
        ahead = gradient.add(velocity, alpha=momentum)
        # Channels last, as they lie in memory: a matrix's columns may have any order.
        ahead = ahead.movedim(1, -1)
        back = orthogonal(ahead.flatten(1), group["iterations"], -torch.where(stays, 0.0, rate))
        torch.addcmul(back.view_as(ahead).movedim(-1, 1), parameter, scale, out=parameter)


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
