"""What the tests of the report share: the folder of a finished run that was never trained."""

from dataclasses import replace

import numpy as np

from onecycle import files
from onecycle.recipe import book
from onecycle.run import record

EPOCHS = 3


def write_run(folder, data, recipe=None, probabilities=None):
    """The folder of a run on `data`, with made-up figures and, by default, made-up predictions."""
    recipe = recipe or book.change(book.find("davidnet"), ["model.width=2"], epochs=EPOCHS)
    count, classes = len(data.test), len(data.classes)
    if probabilities is None:
        draw = np.random.default_rng(0)
        logits = draw.normal(0, 1, (count, classes))
        logits[np.arange(count), data.test.labels] += 1.5
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = float((probabilities.argmax(1) == data.test.labels).mean())
    folder.mkdir(parents=True)
    digest = recipe.digest()
    files.write_json(folder / record.RECIPE, {"digest": digest, "recipe": recipe.to_dict()})
    files.write_json(folder / record.CLASSES, list(data.classes))
    machine = {"device": "cpu", "precision": "fp32", "threads": 1, "reason": "asked for"}
    files.write_json(
        folder / record.ENVIRONMENT,
        {
            "data": {
                "name": data.name,
                "source": data.source or "digits",
                "digest": data.digest,
                "train": len(data.train),
                "val": 0,
                "test": count,
                "image_size": data.image_size,
                "mean": data.mean.tolist(),
                "std": data.std.tolist(),
                "skipped": list(data.skipped),
            },
            "seed": 0,
            "val_fraction": 0.0,
            "machine": machine,
            "hardware": "a CPU",
            "system": "Linux",
            "python": "3.11",
            "versions": {"torch": "2.13.0"},
        },
    )
    rows = [
        {
            "epoch": i + 1,
            "lr": 0.1 / (i + 1),
            "train_loss": 2 / (i + 1),
            "train_accuracy": 0.5,
            "test_loss": 1 / (i + 1),
            "test_accuracy": right,
        }
        for i in range(EPOCHS)
    ]
    record.write_table(folder / record.METRICS, rows)
    record.write_predictions(
        folder, "test", probabilities.astype(np.float32), data.test.labels.astype(np.int64)
    )
    files.write_json(
        folder / record.SUMMARY,
        {
            "run": str(folder),
            "recipe": recipe.name,
            "recipe_digest": digest,
            "data": data.name,
            "data_digest": data.digest,
            "seed": 0,
            "epochs": float(EPOCHS),
            "steps": 9,
            "parameters": 1000,
            "test_accuracy": right,
            "test_loss": 1.0,
            "train_accuracy": 0.5,
            "gap": 0.5 - right,
            "train_images": len(data.train),
            "seconds": 12.3,
            "train_seconds": 10.0,
        },
    )
    return folder


def named(data, classes, name, test_names):
    """`data` with other names of its classes, itself and its test images."""
    names = tuple(test_names[i % len(test_names)] for i in range(len(data.test)))
    return replace(data, classes=classes, name=name, test=replace(data.test, names=names))
