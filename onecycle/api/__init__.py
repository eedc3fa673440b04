"""The verbs as Python functions, and the Run that they return; a file for each kind of verb."""

from onecycle.api.ablation import Ablation, ablate
from onecycle.api.data import DataFacts, data
from onecycle.api.demo import Demo, demo
from onecycle.api.diagnosis import Diagnosis, doctor
from onecycle.api.evaluation import Evaluation, evaluate
from onecycle.api.exporting import Exported, export
from onecycle.api.gallery import Gallery, gallery
from onecycle.api.handle import Run, load
from onecycle.api.labels import label_errors
from onecycle.api.lr import RangeTest, find_lr
from onecycle.api.prediction import predict
from onecycle.api.recipes import recipes
from onecycle.api.report import Report, report
from onecycle.api.results import Results, results
from onecycle.api.seeds import Runs
from onecycle.api.speed import Bench, bench
from onecycle.api.summary import summary
from onecycle.api.training import resume, train
from onecycle.recipe.schema import Recipe
from onecycle.use.prediction import Prediction

__all__ = [
    "Ablation",
    "Bench",
    "DataFacts",
    "Demo",
    "Diagnosis",
    "Evaluation",
    "Exported",
    "Gallery",
    "Prediction",
    "RangeTest",
    "Recipe",
    "Report",
    "Results",
    "Run",
    "Runs",
    "ablate",
    "bench",
    "data",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "find_lr",
    "gallery",
    "label_errors",
    "load",
    "predict",
    "recipes",
    "report",
    "results",
    "resume",
    "summary",
    "train",
]
