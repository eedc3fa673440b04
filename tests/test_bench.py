"""`bench`: the machine's speed, and the share of it that each recipe gets."""

import json

import pytest
import torch

import onecycle
from onecycle import machine as machines
from onecycle.api import speed as benches
from onecycle.errors import RecipeError
from onecycle.recipe import book
from onecycle.run import estimate


@pytest.fixture
def known(machine, monkeypatch):
    """A machine of 1 TFLOP/s in fp32 and 4 in bf16, on which an image takes 10 ms to train on."""
    rates = {torch.float32: 1e12, torch.bfloat16: 4e12}
    monkeypatch.setattr(machines, "choose", lambda *_: machine)
    monkeypatch.setattr(
        machines, "matrix_rates", lambda dtypes, device, side: [rates[each] for each in dtypes]
    )
    monkeypatch.setattr(machines, "bandwidth", lambda device: 2e10)
    monkeypatch.setattr(estimate, "image_seconds", lambda *_: 0.01)


def test_every_recipe_of_the_catalogue_is_measured(known):
    made = onecycle.bench(quiet=True)
    assert [speed.recipe for speed in made.recipes] == book.names()
    assert made.matrix_rates == {"fp32": 1e12, "bf16": 4e12} and made.bandwidth == 2e10


def test_the_share_is_of_the_rate_in_the_precision_that_is_computed_in(known):
    (speed,) = onecycle.bench("davidnet", quiet=True).recipes
    # 379.3 M multiply-adds forward, twice that backward, two operations each.
    assert speed.operations == pytest.approx(6 * 379.3e6, rel=1e-3)
    assert speed.images_per_second == pytest.approx(100)
    assert speed.share == pytest.approx(100 * speed.operations / 1e12)
    trained, judged = 24 * 98 * 512, 24 * 10_000 + 50_000
    assert speed.seconds == pytest.approx(0.01 * (trained + judged / 3))


def test_each_recipe_gets_its_share_of_the_time_that_is_left(known, monkeypatch):
    seen, now = [], [0.0]

    def timed(recipe, data, machine, allowed):
        seen.append((recipe.name, allowed))
        now[0] += 3.0
        return 0.01

    monkeypatch.setattr(estimate, "image_seconds", timed)
    monkeypatch.setattr(benches.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(benches, "ALL_SECONDS", 18.0)
    onecycle.bench(["davidnet", "digits", "dilated"], quiet=True)
    assert seen == [("davidnet", 6.0), ("digits", 7.5), ("dilated", 12.0)]


def test_a_real_measurement_agrees_with_itself(machine, make_recipe, monkeypatch):
    monkeypatch.setattr(benches, "SIDE", {"cpu": 128})
    monkeypatch.setattr(machines, "COPIED", 2**20)
    monkeypatch.setattr(estimate, "ENOUGH_SECONDS", 0)
    made = onecycle.bench(make_recipe(), device="cpu", precision="fp32", threads=1, quiet=True)
    (speed,) = made.recipes
    assert made.machine.threads == 1 and made.matrix_rates.keys() == {"fp32", "bf16"}
    assert min(*made.matrix_rates.values(), made.bandwidth, speed.seconds) > 0
    rate = speed.images_per_second * speed.operations / made.matrix_rates["fp32"]
    assert speed.share == pytest.approx(rate)


def test_the_command_prints_what_the_function_gives(known, command):
    made = onecycle.bench(["davidnet", "dilated"], quiet=True)
    asked = ["--recipe", "davidnet", "--recipe", "dilated"]
    code, out, err = command("bench", *asked)
    assert (code, out) == (0, f"{made}\n") and "davidnet (1 of 2)" in err
    code, out, err = command("bench", *asked, "--json", "-q")
    assert (code, err) == (0, "") and json.loads(out) == made.to_dict()
    code, out, err = command("bench", "--recipe", "davidnt")
    assert code == 2 and out == "" and "did you mean 'davidnet'" in err


def test_a_recipe_that_is_not_there_is_named():
    with pytest.raises(RecipeError, match="davidnt"):
        onecycle.bench(["davidnet", "davidnt"], quiet=True)


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    def half_a_second(device, works):
        return [0.5 for work in works if work() is not None]

    monkeypatch.setattr(machines, "_best_seconds", half_a_second)
    monkeypatch.setattr(machines, "COPIED", 1000)
    assert machines.bandwidth() == 4000
    assert machines.matrix_rates([torch.float32], side=10) == [4000]
