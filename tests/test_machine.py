"""Device and precision are chosen by looking, and computing in fp16 keeps small gradients."""

import subprocess
import sys

import pytest
import torch
from llvmlite import binding

from onecycle import machine as machines
from onecycle.machine import Machine
from onecycle.training import state as states
from onecycle.training.loop import fit


@pytest.fixture
def cpu(monkeypatch):
    """Pretends to be a CPU with or without native bf16, and how much faster it is with it."""

    def pretend(amx, avx, gain):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
        rates = {torch.bfloat16: gain, torch.float32: 1.0}
        monkeypatch.setattr(machines, "matrix_rates", lambda dtypes: [rates[d] for d in dtypes])

    return pretend


@pytest.mark.parametrize(
    ("amx", "avx", "gain", "precision", "reason"),
    [
        (True, True, 6.0, "bf16", "AMX"),
        (False, True, 4.0, "bf16", "AVX512-BF16"),
        (False, True, 1.1, "fp32", "only 1.1 times"),
        (False, False, 6.0, "fp32", "no native bf16"),
    ],
)
def test_a_cpu_computes_in_what_it_is_fast_at(cpu, amx, avx, gain, precision, reason):
    cpu(amx, avx, gain)
    chosen = machines.choose(threads=1)
    assert (chosen.device, chosen.precision) == ("cpu", precision)
    assert reason in chosen.describe()


@pytest.mark.parametrize(
    ("capability", "precision", "scaled"), [((9, 0), "bf16", False), ((7, 5), "fp16", True)]
)
def test_a_gpu_without_native_bf16_gets_fp16_and_a_loss_scale(
    monkeypatch, capability, precision, scaled
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    chosen = machines.choose(threads=1)
    assert (chosen.device, chosen.precision) == ("cuda", precision)
    assert (chosen.loss_scale != 1) == scaled


def test_matrix_rates_are_measured():
    assert all(rate > 1e9 for rate in machines.matrix_rates([torch.float32, torch.float32]))


@pytest.mark.parametrize("quiet", [0, 5, 10])
def test_a_moment_in_which_the_machine_is_busy_does_not_tell_types_apart(monkeypatch, quiet):
    now = 0.0

    def takes(seconds):
        def work():
            nonlocal now
            busy = not quiet <= now < quiet + 9  # seconds, of about 39
            now += seconds * (3 if busy else 1)

        return work

    monkeypatch.setattr(machines.time, "perf_counter", lambda: now)
    assert machines._best_seconds("cpu", [takes(1.0), takes(2.0)]) == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(("side", "images"), [(16, 256), (32, 64), (64, 16), (128, 4), (4096, 1)])
def test_as_many_pixels_are_computed_at_once_whatever_the_images_size(side, images):
    assert machines.choose("cpu", "fp32", 1).at_once(side) == images


def test_there_are_tiles_only_where_the_cpu_the_system_and_the_compiler_have_them(monkeypatch):
    found = []
    for cpu, system, compiler in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)):
        monkeypatch.setattr(machines, "AMX", bool(cpu))
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda system=system: bool(system))
        features = {"amx-bf16": bool(compiler), "amx-int8": True, "avx512bf16": True}
        monkeypatch.setattr(binding, "get_host_cpu_features", lambda features=features: features)
        found.append(machines.has_tiles.__wrapped__())
    assert found == [False, False, False, True]


def test_more_images_are_computed_at_once_by_tiles(monkeypatch):
    monkeypatch.setattr(machines, "has_tiles", lambda: True)
    assert Machine("cpu", "bf16", 2, "").piece == 4 * Machine("cpu", "fp32", 2, "").piece
    monkeypatch.setattr(machines, "has_tiles", lambda: False)
    assert Machine("cpu", "bf16", 2, "").piece == Machine("cpu", "fp32", 2, "").piece


def test_threads_are_set_and_recorded():
    assert machines.choose("cpu", "fp32", 1).to_dict()["threads"] == 1 == torch.get_num_threads()
    assert machines.choose("cpu", "fp32").threads == machines.usable_cores()


def test_the_loss_scale_changes_no_step(tiny, make_recipe, monkeypatch):
    """The scale is a power of two: in fp32 arithmetic, putting it in and taking it out is exact."""
    recipe = make_recipe()

    def weights(scale):
        where = Machine("cpu", "fp32", 1, "")
        monkeypatch.setattr(Machine, "loss_scale", scale)
        state = states.create(recipe, tiny, where, seed=0)
        for _, _ in zip(range(3), fit(state, tiny, recipe, where, seed=0), strict=False):
            pass
        return state.model.prep.conv.weight

    assert torch.equal(weights(1.0), weights(machines.FP16_LOSS_SCALE))


def test_fp16_and_bf16_follow_fp32(tiny, make_recipe):
    recipe = make_recipe()

    def losses(precision):
        where = Machine("cpu", precision, 1, "")
        state = states.create(recipe, tiny, where, seed=0)
        return [float(step.loss) for step in fit(state, tiny, recipe, where, seed=0)]

    exact = torch.tensor(losses("fp32"))
    for precision in ("fp16", "bf16"):
        found = torch.tensor(losses(precision))
        assert not torch.equal(found, exact), "computed in another precision"
        torch.testing.assert_close(found, exact, rtol=0.1, atol=0.05)


def test_denormal_numbers_are_zero_in_every_thread():
    code = """if True:
        from concurrent.futures import ThreadPoolExecutor
        import torch
        from onecycle import machine
        machine.choose(threads=2)
        tiny = torch.full((2_000_000,), 1e-20)
        assert not (tiny * tiny).any()
        with ThreadPoolExecutor(1) as lane:
            assert not lane.submit(lambda: (tiny[:9] * tiny[:9]).any()).result()
    """
    subprocess.run([sys.executable, "-c", code], check=True)
