"""What the tests of the report share: finished runs that were never trained, and the page read."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from onecycle import files
from onecycle.recipe import book
from onecycle.reporting import plots
from onecycle.run import record, reopen

EPOCHS = 3
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}{# x #}",
    "javascript:alert(1)",
    '<iframe srcdoc="<script>alert(1)</script>">',
    '<!-- <a href="javascript:alert(1)">x</a> -->',
    "]]><object data=x>&lt;script&gt;",
    "a\n\n# b\n<base href=//x> **bold** <https://x>",
    '`[x](javascript:alert(1))` ![y](x "onload=1") | $x$',
)
HARMLESS = tuple(f"class{i}" for i in range(len(PAYLOADS)))


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


class Parsed(HTMLParser):
    """Tags in their order with their attributes, and the text between them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text())
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.text += " "

    def handle_data(self, data):
        self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    @property
    def shape(self):
        """All that a name must not change."""
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]


@pytest.fixture
def without_maps(monkeypatch):
    """As where captum isn't installed; maps need weights, which a run made here has not."""
    monkeypatch.setattr(import_module("onecycle.api.report"), "find_spec", lambda _: None)


@pytest.fixture
def drawn_at_once(without_maps, monkeypatch):
    """Pictures are a pixel: what is in them is not looked at."""
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, format="PNG")
    monkeypatch.setattr(plots, "png", lambda figure: content.getvalue())


@pytest.fixture
def make_run(tmp_path, make_data, monkeypatch):
    """A function that writes the run folder `name` with classes and test images so called."""

    def make(name="a-run", classes=HARMLESS, files_called=HARMLESS, recipe=None, data="tiny"):
        images = make_data(classes=len(classes), train=10 * len(classes), test=5 * len(classes))
        images = named(images, classes, data, files_called)
        monkeypatch.setattr(reopen, "dataset", lambda *_, **__: images)
        return write_run(tmp_path / name, images, recipe)

    return make
