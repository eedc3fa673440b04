"""The end of a run: judge the final weights, and write what is kept of them."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from onecycle import files
from onecycle.datasets.dataset import Split
from onecycle.errors import DivergedError
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import parameter_count
from onecycle.run import record
from onecycle.run.job import Job
from onecycle.training.state import TrainState

AT_ONCE = 50_000  # training images whose probabilities are held


def finite(predicted: NDArray[np.float32], job: Job, step: int) -> NDArray[np.float32]:
    """`predicted` as it is; DivergedError if the network gives anything that is no number."""
    if not np.isfinite(predicted).all():
        raise DivergedError(
            f"what the network predicts after step {step} is no longer finite: start anew with a "
            f"lower --lr, or with --precision fp32 (now {job.machine.precision})"
        )
    return predicted


def finish(job: Job, state: TrainState, train_seconds: float, started: float) -> dict[str, Any]:
    """Write the weights, the probabilities and `summary.json`; the summary.

    The test part (and a validation part) is predicted in fp32, the training part, for the gap, in
    the run's precision. Accuracies are fractions. Of several processes all predict, and the first
    writes. Raises DiskError, and DivergedError for predictions that are no numbers.
    """
    data = job.dataset
    parts = {"test": data.test} | ({"val": data.val} if data.val else {})
    exact = job.machine.in_fp32()
    predicted = {
        name: finite(probabilities(state.model, split, exact, ranks=job.ranks), job, state.step)
        for name, split in parts.items()
    }
    weights = _keep(job, state, parts, predicted) if job.ranks.first else ""
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
        "epochs": job.recipe.sized(len(data.train)).epochs,
        "steps": state.step,
        "parameters": parameter_count(state.model),
        "weights_sha256": weights,
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
        predicted = finite(
            probabilities(state.model, part, job.machine, ranks=job.ranks), job, state.step
        )
        right += round(metrics.accuracy(predicted, part.labels) * len(part))
    return right / len(split)


def _keep(
    job: Job,
    state: TrainState,
    parts: dict[str, Split],
    predicted: dict[str, NDArray[np.float32]],
) -> str:
    """Write the final weights, and each part's probabilities with its labels; the weights' hash."""
    weights = {k: v.detach().cpu().contiguous() for k, v in state.model.state_dict().items()}
    content = save(weights)
    files.write_bytes(job.folder / record.WEIGHTS, content)
    for name, split in parts.items():
        record.write_predictions(job.folder, name, predicted[name], split.labels)
    return files.sha256_bytes(content)
