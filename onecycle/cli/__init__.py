"""The command line: parse, call the API, print. A file for each verb; torch is imported late."""

from onecycle.cli import ablation, diagnosis, evaluation, lr, recipes, results, summary, training
from onecycle.cli.app import main

__all__ = [
    "ablation",
    "diagnosis",
    "evaluation",
    "lr",
    "main",
    "recipes",
    "results",
    "summary",
    "training",
]
