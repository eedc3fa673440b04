"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.ablation import Ablation, ablate
from onecycle.api.diagnosis import Diagnosis, doctor
from onecycle.api.evaluation import Evaluation, evaluate
from onecycle.api.handle import Run, load
from onecycle.api.lr import RangeTest, find_lr
from onecycle.api.recipes import recipes
from onecycle.api.results import Results, results
from onecycle.api.seeds import Runs
from onecycle.api.summary import summary
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe

__all__ = [
    "Ablation",
    "Diagnosis",
    "Evaluation",
    "RangeTest",
    "Recipe",
    "Results",
    "Run",
    "Runs",
    "ablate",
    "doctor",
    "evaluate",
    "find_lr",
    "load",
    "recipes",
    "results",
    "resume",
    "summary",
    "train",
]
