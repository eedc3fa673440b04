"""Weights for a run to begin with: those that another run ended with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from onecycle import files
from onecycle.datasets.dataset import Dataset
from onecycle.errors import DiskError, RecipeError
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.recipe.schema import ModelSpec, Recipe
from onecycle.run import record, reopen


@dataclass(frozen=True)
class Initial:
    """Weights by name, the names of those that begin anew, and where they are from, as recorded.

    The mean and deviation that pixels are standardized with are among the weights, which expect
    them: they stay those of the data that the weights were first trained on.
    """

    weights: dict[str, Tensor]
    anew: tuple[str, ...]
    source: dict[str, Any]

    def put_into(self, model: nn.Module) -> None:
        """Give `model` these weights."""
        model.load_state_dict({**model.state_dict(), **self.weights})

    def describe(self) -> str:
        """One line for people."""
        anew = f"; anew, for other classes: {', '.join(self.anew)}" if self.anew else ""
        return f"from the final weights of {self.source['run']}{anew}"


def initial(folder: Path, recipe: Recipe, data: Dataset) -> Initial:
    """The final weights of the finished run `folder` for a run of `recipe` on `data`.

    Where the classes differ, what depends on their number begins anew. Raises RecipeError if the
    networks differ in anything else, DiskError.
    """
    reopen.finished(folder)
    theirs = book.find(str(folder / record.RECIPE))
    ours, other = recipe.model.model_dump(), theirs.model.model_dump()
    if differ := [key for key in ours if ours[key] != other.get(key)]:
        raise RecipeError(
            f"--init {folder}: its network differs in {', '.join(f'model.{key}' for key in differ)}"
            f": --recipe {folder / record.RECIPE} has the same one"
        )
    content = reopen.weights(folder)
    try:
        weights = load(content)
    except SafetensorError as error:
        raise DiskError(f"cannot read {folder / record.WEIGHTS}: no weights") from error
    shapes = {
        name: value.shape for name, value in build(recipe.model, data, 0).state_dict().items()
    }
    anew = () if reopen.images(folder).classes == data.classes else _head(recipe.model, data)
    for name in shapes.keys() - anew:
        if name not in weights or weights[name].shape != shapes[name]:
            raise RecipeError(
                f"--init {folder}: {name} is of another shape there, as for other images: "
                f"give --image-size {reopen.images(folder).image_size}"
            )
    return Initial(
        {name: weights[name] for name in shapes.keys() - anew},
        anew,
        {
            "run": str(folder),
            "weights_sha256": files.sha256_bytes(content),
            "recipe_digest": theirs.digest(),
            "data": files.read_json(folder / record.SUMMARY)["data"],
            "anew": list(anew),
        },
    )


def _head(spec: ModelSpec, data: Dataset) -> tuple[str, ...]:
    """The weights whose shapes depend on the number of classes."""
    more = reopen.Images((*data.classes, ""), data.image_size, data.mean, data.std)
    one, other = (build(spec, images, 0).state_dict() for images in (data, more))
    return tuple(name for name in one if one[name].shape != other[name].shape)
