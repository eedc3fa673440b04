"""Runs of about a second in forked processes, to be killed, interrupted and started at once."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from onecycle import cli, files
from onecycle.api import setup, single
from onecycle.datasets.dataset import Dataset, Split
from onecycle.progress import Show
from onecycle.recipe import book
from onecycle.reporting import plots
from onecycle.run import checkpoint, estimate, record, reopen

# A server without threads, in which everything is imported once, forks a child for each run.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["onecycle.api", "onecycle.cli", "torch._dynamo"])

SMALL = ["model.width=4", "epochs=2", "schedule.peak_epoch=1", "batch_size=8", "ghost_batch=4"]
STEPS = 24
DONE = (record.WEIGHTS, "test_probabilities.npy", record.METRICS)
IN_A_SAVE = ("fsync", "replace", "unlink")  # the calls that a save consists of, beside writing


def data(*_arguments, **_options):
    draw = np.random.default_rng(0)

    def split(count):
        pixels = draw.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        return Split(pixels, np.arange(count), np.arange(count) % 3)

    return Dataset("short", ("a", "b", "c"), split(96), split(12), digest="short", source="short")


def replace_slow_parts():
    """Data made in no time instead of loaded, nothing measured at the start, nothing drawn."""
    torch.set_num_threads(1)
    setup.load = reopen.load_data = data
    estimate.seconds = lambda *_: 0.0
    plots.save = plots.curves = lambda *_: None


def begin_or_go_on(folder, save_every="1steps"):
    """A run into `folder`, gone on with if it was saved before."""
    replace_slow_parts()
    if checkpoint.has_checkpoint(folder):
        single.resume(folder, Show(quiet=True))
        return
    shutil.rmtree(folder, ignore_errors=True)
    recipe = book.change(book.find("davidnet"), SMALL)
    made = setup.Setup(recipe, "short", precision="fp32", threads=1, save_every=save_every)
    single.train(made, 0, folder, Show(quiet=True))


def begin_or_go_on_until_call(folder, number):
    """The same, killed before its `number`-th call of those that make a save durable."""
    left = [number]

    def counted(function):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in IN_A_SAVE:
        setattr(os, name, counted(getattr(os, name)))
    begin_or_go_on(folder)


def command_line(folder, words, said, ready=None):
    """`onecycle` with `words`; its outcome and what it printed go to the folder `said`."""
    replace_slow_parts()
    said.mkdir(parents=True, exist_ok=True)
    if ready:
        ready.wait()
    with open(said / str(os.getpid()), "w") as text:
        sys.stdout = sys.stderr = text
        sys.argv = ["onecycle", *words, *(["--out", str(folder)] if folder else [])]
        cli.main()


def start(function, *arguments):
    process = FORKED.Process(target=function, args=arguments)
    process.start()
    return process


def done(folder):
    """The hash of each file that the end of a run leaves."""
    return [files.sha256_file(Path(folder) / name) for name in DONE]
