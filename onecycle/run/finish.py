"""The end of a run: judge the final weights, and write what is kept of them."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from onecycle import files
from onecycle.datasets.dataset import Split
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import parameter_count
from onecycle.run import record
from onecycle.run.job import Job
from onecycle.training.state import TrainState

AT_ONCE = 50_000  # training images whose probabilities are held


def finish(job: Job, state: TrainState, train_seconds: float, started: float) -> dict[str, Any]:
    """Write the weights, the probabilities and `summary.json`; the summary.

    The test part (and a validation part) is predicted in fp32, the training part, for the gap, in
    the run's precision. Accuracies are fractions. Of several processes all predict, and the first
    writes. Raises DiskError.
    """
    data = job.dataset
    parts = {"test": data.test} | ({"val": data.val} if data.val else {})
    exact = job.machine.in_fp32()
    predicted = {
        name: probabilities(state.model, split, exact, ranks=job.ranks)
        for name, split in parts.items()
    }
    if job.ranks.first:
        _keep(job, state, parts, predicted)
    accuracies = {
        f"{name}_accuracy": metrics.accuracy(predicted[name], split.labels)
        for name, split in parts.items()
    }
    train_accuracy = _accuracy(job, state, data.train)
    summary = {
        "run": str(job.folder),
        "recipe": job.recipe.name,
        "recipe_digest": job.recipe.digest(),
        "data": data.name,
        "data_digest": data.digest,
        "seed": job.seed,
        "epochs": job.recipe.epochs,
        "steps": state.step,
        "parameters": parameter_count(state.model),
        **accuracies,
        "test_loss": metrics.loss(predicted["test"], data.test.labels),
        "train_accuracy": train_accuracy,
        "gap": train_accuracy - accuracies["test_accuracy"],
        "train_images": len(data.train),
        "seconds": round(time.monotonic() - started, 2),
        "train_seconds": round(train_seconds, 2),
        "device": job.machine.device,
        "precision": job.machine.precision,
        "threads": job.machine.threads,
        "processes": job.ranks.world,
    }
    if job.ranks.first:
        files.write_json(job.folder / record.SUMMARY, summary)
    return summary


def _accuracy(job: Job, state: TrainState, split: Split) -> float:
    """The share of `split` that is right, with few probabilities held at once."""
    right = 0
    for start in range(0, len(split), AT_ONCE):
        part = split.subset(np.arange(start, min(start + AT_ONCE, len(split))))
        predicted = probabilities(state.model, part, job.machine, ranks=job.ranks)
        right += round(metrics.accuracy(predicted, part.labels) * len(part))
    return right / len(split)


def _keep(
    job: Job,
    state: TrainState,
    parts: dict[str, Split],
    predicted: dict[str, NDArray[np.float32]],
) -> None:
    """Write the final weights, and each part's probabilities with its labels."""
    weights = {k: v.detach().cpu().contiguous() for k, v in state.model.state_dict().items()}
    files.write_bytes(job.folder / record.WEIGHTS, save(weights))
    for name, split in parts.items():
        record.write_predictions(job.folder, name, predicted[name], split.labels)
