"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.handle import Run
from onecycle.api.lr import RangeTest, find_lr
from onecycle.api.recipes import recipes
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = ["RangeTest", "Recipe", "Run", "find_lr", "recipes", "resume", "train"]
