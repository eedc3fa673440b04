"""Optimizers from a recipe's groups."""

from fnmatch import fnmatchcase

import torch
from torch import nn

from onecycle.errors import RecipeError
from onecycle.recipe.schema import AdamSpec, GroupSpec, MuonSpec, Recipe, SgdSpec
from onecycle.training.muon import Muon
from onecycle.training.schedule import Timetable

Row = tuple[GroupSpec, list[nn.Parameter]]  # a group and its parameters


def make(recipe: Recipe, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimizers that the recipe's groups name, in the order in which they first appear.

    Raises as `grouped`.
    """
    rows = grouped(recipe, model)
    kinds = dict.fromkeys(group.optimizer for group, _ in rows)
    return [
        _optimizer(recipe, kind, [row for row in rows if row[0].optimizer == kind])
        for kind in kinds
    ]


def grouped(recipe: Recipe, model: nn.Module) -> list[Row]:
    """The recipe's groups, each with its parameters of `model`.

    Each parameter belongs to the first group whose pattern matches its name. Raises RecipeError
    for a parameter that no group matches, for a group that matches no parameter, and for one that
    its optimizer can't be used for.
    """
    rows: list[Row] = [(group, []) for group in recipe.groups]
    for name, parameter in model.named_parameters():
        for group, members in rows:
            if fnmatchcase(name, group.match):
                members.append(parameter)
                break
        else:
            raise RecipeError(f"recipe {recipe.name}: no group matches the parameter {name}")
    for group, members in rows:
        if not members:
            raise RecipeError(f"recipe {recipe.name}: group '{group.match}' matches no parameter")
        flat = group.optimizer == "muon" and [m for m in members if m.ndim < 2]
        if flat:
            raise RecipeError(
                f"recipe {recipe.name}: group '{group.match}': muon is for matrices and "
                "convolutions, and some of its parameters are vectors"
            )
    return rows


def moments(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of what `optimizer` keeps of a parameter from step to step."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one too
        return {"step", "exp_avg", "exp_avg_sq"}
    return {"momentum_buffer"}


def set_rates(optimizers: list[torch.optim.Optimizer], timetable: Timetable, step: int) -> float:
    """Give every parameter group its rate and momentum for `step`; the rate before scaling."""
    lr = timetable.lr(step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
            momentum = timetable.momentum(step, group["base_momentum"])
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
    return lr


def _optimizer(recipe: Recipe, kind: str, rows: list[Row]) -> torch.optim.Optimizer:
    spec: SgdSpec | AdamSpec | MuonSpec = getattr(recipe.optimizers, kind)
    groups = [
        {
            "params": members,
            "lr_scale": group.lr_scale,
            "weight_decay": group.weight_decay,
            "base_momentum": spec.momentum,
        }
        for group, members in rows
    ]
    lr = 0.0  # set before each step
    if isinstance(spec, SgdSpec):
        return torch.optim.SGD(
            groups, lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True
        )
    if isinstance(spec, MuonSpec):
        return Muon(groups, lr, momentum=spec.momentum, iterations=spec.iterations)
    maker = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return maker(groups, lr, betas=(spec.momentum, spec.beta2), eps=spec.eps, fused=True)
