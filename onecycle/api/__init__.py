"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.evaluation import Evaluation, evaluate
from onecycle.api.gallery import Gallery, gallery
from onecycle.api.handle import Run, load
from onecycle.api.labels import label_errors
from onecycle.api.recipes import recipes
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = [
    "Evaluation",
    "Gallery",
    "Recipe",
    "Run",
    "evaluate",
    "gallery",
    "label_errors",
    "load",
    "recipes",
    "resume",
    "train",
]
