"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.evaluation import Evaluation, evaluate
from onecycle.api.handle import Run, load
from onecycle.api.recipes import recipes
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = ["Evaluation", "Recipe", "Run", "evaluate", "load", "recipes", "resume", "train"]
