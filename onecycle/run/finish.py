"""The end of a run: judge the final weights, and write what is kept of them."""

import time
from typing import Any

from safetensors.torch import save

from onecycle import files
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.model.build import parameter_count
from onecycle.run import record
from onecycle.run.job import Job
from onecycle.training.state import TrainState


def finish(job: Job, state: TrainState, train_seconds: float, started: float) -> dict[str, Any]:
    """Write the weights, the probabilities and `summary.json`; the summary.

    The test part (and a validation part) is predicted in fp32, the training part, for the gap, in
    the run's precision. Accuracies are fractions. Raises DiskError.
    """
    data, folder = job.dataset, job.folder
    test = probabilities(state.model, data.test, job.machine.in_fp32())
    train = probabilities(state.model, data.train, job.machine)
    figures = {
        "test_accuracy": metrics.accuracy(test, data.test.labels),
        "test_loss": metrics.loss(test, data.test.labels),
        "train_accuracy": metrics.accuracy(train, data.train.labels),
    }
    if data.val:
        val = probabilities(state.model, data.val, job.machine.in_fp32())
        figures["val_accuracy"] = metrics.accuracy(val, data.val.labels)
        record.write_predictions(folder, "val", val, data.val.labels)
    weights = {k: v.detach().cpu().contiguous() for k, v in state.model.state_dict().items()}
    files.write_bytes(folder / record.WEIGHTS, save(weights))
    record.write_predictions(folder, "test", test, data.test.labels)
    summary = {
        "run": str(folder),
        "recipe": job.recipe.name,
        "recipe_digest": job.recipe.digest(),
        "data": data.name,
        "data_digest": data.digest,
        "seed": job.seed,
        "epochs": job.recipe.epochs,
        "steps": state.step,
        "parameters": parameter_count(state.model),
        **figures,
        "gap": figures["train_accuracy"] - figures["test_accuracy"],
        "train_images": len(data.train),
        "seconds": round(time.monotonic() - started, 2),
        "train_seconds": round(train_seconds, 2),
        "device": job.machine.device,
        "precision": job.machine.precision,
        "threads": job.machine.threads,
    }
    files.write_json(folder / record.SUMMARY, summary)
    return summary
