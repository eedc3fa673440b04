"""bench/plain_baseline.py: the same network the plain way, and its images a second."""

import json

import torch
from bench_scripts import script

from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.recipe.schema import AugmentSpec

plain = script("plain_baseline")


def test_the_plain_network_computes_what_the_recipes_does():
    recipe, data = book.change(book.find("davidnet"), ["model.width=4"]), plain.noise(24)
    ours, theirs = build(recipe.model, data, seed=0).train(), plain.plain_model(recipe, data)
    as_they_are = recipe.model_copy(update={"augment": AugmentSpec(), "batch_size": 24})
    (images,) = plain.loaded(as_they_are, data, steps=1, workers=0)
    expected = ours(torch.from_numpy(data.train.pixels))
    torch.testing.assert_close(theirs(images), expected, rtol=1e-3, atol=1e-4)
    assert images.is_contiguous() and images.dtype == torch.float32
    assert not any("Ghost" in type(module).__name__ for module in theirs.modules())


def test_its_rate_is_measured(capsys):
    options = ["--steps", "2", "--batch", "16", "--width", "2", "--workers", "0", "--threads", "1"]
    plain.main(options)
    found = json.loads(capsys.readouterr().out)
    assert found["images_per_second"] > 0 and found["threads"] == 1
    assert found["seconds_of_training"] * found["images_per_second"] == 24 * 50_000
