"""Short runs on the digits, with a narrow network."""

import onecycle
from onecycle import machine
from onecycle.datasets.load import load
from onecycle.recipe import book
from onecycle.run import record
from onecycle.run.job import Job

TINY = ["model.width=4", "batch_size=64", "epochs=2", "schedule.peak_epoch=1"]


def train(**options):
    return onecycle.train(
        "digits", settings=TINY, precision="fp32", threads=1, quiet=True, **options
    )


def weights(run):
    return (run.path / record.WEIGHTS).read_bytes()


def job(folder, **changes):
    recipe = book.change(book.find("digits"), TINY + [f"{k}={v}" for k, v in changes.items()])
    folder.mkdir()
    return Job(recipe, load("digits"), machine.choose("cpu", "fp32", 1), 0, folder)
