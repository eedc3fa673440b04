"""The command line: parse, call the API, print. A file for each verb; torch is imported late."""

from onecycle.cli import (
    ablation,
    evaluation,
    exporting,
    lr,
    prediction,
    recipes,
    results,
    summary,
    training,
)
from onecycle.cli.app import main

__all__ = [
    "ablation",
    "evaluation",
    "exporting",
    "lr",
    "main",
    "prediction",
    "recipes",
    "results",
    "summary",
    "training",
]
