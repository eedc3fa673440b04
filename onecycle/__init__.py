"""Train a small image classifier in one cycle, and know what it got wrong."""

from typing import Any

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


def __getattr__(name: str) -> Any:
    # Handed on when asked for, so that `import onecycle` and `--help` don't wait for torch.
    if name not in __all__:
        raise AttributeError(f"module 'onecycle' has no attribute '{name}'")
    from onecycle import api

    return getattr(api, name)
