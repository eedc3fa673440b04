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
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"] * group["momentum"] + parameter.grad
        ahead = parameter.grad + velocity * group["momentum"]
        update = orthogonal(ahead.flatten(1), group["iterations"]).view_as(parameter)
        scaled = parameter * (len(parameter) ** 0.5 / parameter.norm())
        moved = scaled - group["lr"] * update
        if self.found_inf is not None:
            stays = self.found_inf.bool()
            moved = torch.where(stays, parameter, moved)
            velocity = torch.where(stays, state["momentum_buffer"], velocity)
        parameter.copy_(moved)
        state["momentum_buffer"].copy_(velocity)


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """`matrix` (rows, columns) with all its singular values brought near 1.

    Newton-Schulz multiplies X by a polynomial of its Gram matrix XX' over and over. All those
    polynomials commute, so they are multiplied up in the small Gram matrix first, and the large
    matrix takes part in two products only, whatever the number of iterations.
    """
    if matrix.shape[0] > matrix.shape[1]:
        turned: Tensor = orthogonal(matrix.T, iterations).T
        return turned
    small = matrix / (matrix.norm() + EPS)
    gram = small @ small.T
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    total = identity
    for _ in range(iterations):
        polynomial = LINEAR * identity + CUBIC * gram + QUINTIC * (gram @ gram)
        total = polynomial @ total
        gram = polynomial @ gram @ polynomial
    result: Tensor = total @ small
    return result
