"""The command line: parse, call the API, print. A file for each verb; torch is imported late."""

from onecycle.cli import (
    ablation,
    data,
    demo,
    diagnosis,
    evaluation,
    exporting,
    gallery,
    lr,
    prediction,
    recipes,
    report,
    results,
    speed,
    summary,
    training,
)
from onecycle.cli.app import main

__all__ = [
    "ablation",
    "data",
    "demo",
    "diagnosis",
    "evaluation",
    "exporting",
    "gallery",
    "lr",
    "main",
    "prediction",
    "recipes",
    "report",
    "results",
    "speed",
    "summary",
    "training",
]
