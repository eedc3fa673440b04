"""One training by the clock of a comparison: from images in memory to the test set's predictions.

The clock covers the whitening, every training step with its augmentation, and the predictions of
the test images with their views, in the precision of the training. Not the start of the process,
the reading of the data, or `--warm-up` steps of a training that is thrown away: in them an
accelerator compiles and picks its kernels, and a CPU's are loaded; torch's optimizers import its
compiler when the first is made. Prints one line of JSON, so that `side_by_side.py`
can take turns with a peer's own script; `seconds` and `test_accuracy` are what is compared.

With `--validation`, validation images held out of the training part are predicted instead: what a
choice is made by.

usage: python bench/to_accuracy.py --data PATH [--recipe fast] [--seed 0] [--tta crop]
           [--epochs N] [--set KEY=VALUE ...] [--validation 0.1] [--warm-up STEPS]
           [--device auto] [--precision auto] [--threads N]
"""

import argparse
import json
import time
from itertools import islice
from typing import Any

from onecycle import machine
from onecycle.datasets.dataset import Dataset
from onecycle.datasets.load import load
from onecycle.evaluation import metrics
from onecycle.evaluation.predict import probabilities
from onecycle.evaluation.views import VIEWS
from onecycle.recipe import book
from onecycle.recipe.schema import Recipe
from onecycle.training import state as states
from onecycle.training.loop import fit


def clocked(
    recipe: Recipe, data: Dataset, where: machine.Machine, seed: int, tta: str
) -> dict[str, Any]:
    """Train and predict; the seconds, and the accuracy with the views of `tta` and without."""
    name, judged = ("val", data.val) if data.val else ("test", data.test)
    machine.wait(where.device)
    start = time.perf_counter()
    state = states.create(recipe, data, where, seed)
    for _ in fit(state, data, recipe, where, seed):
        pass
    machine.wait(where.device)
    trained = time.perf_counter()
    predicted = probabilities(state.model, judged, where, tta)
    end = time.perf_counter()
    plain = probabilities(state.model, judged, where) if tta != "none" else predicted
    return {
        "seconds": round(end - start, 3),
        "train_seconds": round(trained - start, 3),
        f"{name}_accuracy": metrics.accuracy(predicted, judged.labels),
        f"{name}_accuracy_plain": metrics.accuracy(plain, judged.labels),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of one training, and what it was."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tta", choices=VIEWS, default="crop")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--validation", type=float)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(arguments)
    where = machine.choose(options.device, options.precision, options.threads)
    recipe = book.change(book.find(options.recipe), options.set, options.epochs)
    data = load(options.data)
    if options.validation:
        data = data.hold_out(options.validation, seed=0)
    start = time.perf_counter()
    if options.warm_up:
        state = states.create(recipe, data, where, options.seed)
        for _ in islice(fit(state, data, recipe, where, options.seed), options.warm_up):
            pass
        machine.wait(where.device)
    warm = time.perf_counter() - start
    found = clocked(recipe, data, where, options.seed, options.tta)
    told = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "data": data.name,
        "seed": options.seed,
        "tta": options.tta,
        **found,
        "warm_up_seconds": round(warm, 3),
        "machine": where.to_dict(),
        "hardware": machine.device_name(where.device),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
