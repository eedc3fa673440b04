"""All that a run can't recompute: weights, optimizer moments and the step."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onecycle.datasets.dataset import Dataset
from onecycle.machine import Machine
from onecycle.model.build import build
from onecycle.model.speednet import Speednet
from onecycle.recipe.schema import Recipe
from onecycle.training import optim


@dataclass
class TrainState:
    """The model, its optimizers and the number of completed steps."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the step, by name: `model.<name>` and `optimizer.<parameter>.<moment>`."""
        names: dict[Tensor, str] = {
            parameter: name for name, parameter in self.model.named_parameters()
        }
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                for key, value in moments.items():
                    if value is not None:
                        tensors[f"optimizer.{names[parameter]}.{key}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Take over what `tensors()` gave at `step`.

        KeyError, ValueError or RuntimeError if it doesn't fit.
        """
        self.model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        parameters = dict(self.model.named_parameters())
        owner = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                name, moment = key.removeprefix("optimizer.").rsplit(".", 1)
                parameter = parameters[name]
                if moment not in optim.moments(owner[parameter]):
                    raise ValueError(f"{key} belongs to another optimizer")
                if value.shape not in (parameter.shape, torch.Size()):
                    raise ValueError(f"{key} has the shape {tuple(value.shape)}")
                # A fused step needs the strides of its parameter.
                like = parameter if value.shape == parameter.shape else value
                kept = torch.empty_like(like, device=parameter.device, requires_grad=False)
                owner[parameter].state[parameter][moment] = kept.copy_(value)
        self.step = step


WHITENED_BY = 1000  # images that the stem's filters are taken from, spread over the training part


def create(recipe: Recipe, dataset: Dataset, machine: Machine, seed: int) -> TrainState:
    """The state before the first step. Raises RecipeError for groups that don't fit the model."""
    model = build(recipe.model, dataset, seed)
    if isinstance(model, Speednet):
        _whiten(model, dataset)
    model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainState(model, optim.make(recipe, model))


def _whiten(model: Speednet, dataset: Dataset) -> None:
    rows = dataset.train.rows[:: -(-len(dataset.train) // WHITENED_BY)]
    model.stem.learn(model.normalize(torch.from_numpy(dataset.train.pixels[rows])))
