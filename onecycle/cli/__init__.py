"""The command line: parse, call the API, print. A file for each verb; torch is imported late."""

from onecycle.cli import evaluation, gallery, recipes, training
from onecycle.cli.app import main

__all__ = ["evaluation", "gallery", "main", "recipes", "training"]
