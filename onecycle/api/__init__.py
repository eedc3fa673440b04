"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.handle import Run
from onecycle.api.recipes import recipes
from onecycle.api.results import Results, results
from onecycle.api.seeds import Runs
from onecycle.api.summary import summary
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = ["Recipe", "Results", "Run", "Runs", "recipes", "results", "resume", "summary", "train"]
