"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.data import DataFacts, data
from onecycle.api.handle import Run
from onecycle.api.recipes import recipes
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = ["DataFacts", "Recipe", "Run", "data", "recipes", "resume", "train"]
