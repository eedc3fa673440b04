"""Train a small image classifier in one cycle, and know what it got wrong."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onecycle.api.ablation import Ablation as Ablation
    from onecycle.api.ablation import ablate as ablate
    from onecycle.api.data import DataFacts as DataFacts
    from onecycle.api.data import data as data
    from onecycle.api.demo import Demo as Demo
    from onecycle.api.demo import demo as demo
    from onecycle.api.diagnosis import Diagnosis as Diagnosis
    from onecycle.api.diagnosis import doctor as doctor
    from onecycle.api.evaluation import Evaluation as Evaluation
    from onecycle.api.evaluation import evaluate as evaluate
    from onecycle.api.exporting import Exported as Exported
    from onecycle.api.exporting import export as export
    from onecycle.api.gallery import Gallery as Gallery
    from onecycle.api.gallery import gallery as gallery
    from onecycle.api.handle import Run as Run
    from onecycle.api.handle import load as load
    from onecycle.api.labels import label_errors as label_errors
    from onecycle.api.lr import RangeTest as RangeTest
    from onecycle.api.lr import find_lr as find_lr
    from onecycle.api.prediction import predict as predict
    from onecycle.api.recipes import recipes as recipes
    from onecycle.api.report import Report as Report
    from onecycle.api.report import report as report
    from onecycle.api.results import Results as Results
    from onecycle.api.results import results as results
    from onecycle.api.seeds import Runs as Runs
    from onecycle.api.speed import Bench as Bench
    from onecycle.api.speed import bench as bench
    from onecycle.api.summary import summary as summary
    from onecycle.api.training import resume as resume
    from onecycle.api.training import train as train
    from onecycle.recipe.schema import Recipe as Recipe
    from onecycle.use.prediction import Prediction as Prediction

# The same again for when a name is asked for: imported only then, so that `--help` does not wait
# for torch, nor a prediction for what draws and judges.
_NAMES = {
    "api.ablation": ["Ablation", "ablate"],
    "api.data": ["DataFacts", "data"],
    "api.demo": ["Demo", "demo"],
    "api.diagnosis": ["Diagnosis", "doctor"],
    "api.evaluation": ["Evaluation", "evaluate"],
    "api.exporting": ["Exported", "export"],
    "api.gallery": ["Gallery", "gallery"],
    "api.handle": ["Run", "load"],
    "api.labels": ["label_errors"],
    "api.lr": ["RangeTest", "find_lr"],
    "api.prediction": ["predict"],
    "api.recipes": ["recipes"],
    "api.report": ["Report", "report"],
    "api.results": ["Results", "results"],
    "api.seeds": ["Runs"],
    "api.speed": ["Bench", "bench"],
    "api.summary": ["summary"],
    "api.training": ["resume", "train"],
    "recipe.schema": ["Recipe"],
    "use.prediction": ["Prediction"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'onecycle' has no attribute '{name}'")
    return getattr(import_module(f"onecycle.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
