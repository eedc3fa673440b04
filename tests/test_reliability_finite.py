"""What is not finite reaches neither weights nor checkpoints, and is named with its step."""

import json

import pytest
import short_runs
import torch

import onecycle
from onecycle.errors import DivergedError, OnecycleError
from onecycle.files import sha256_bytes
from onecycle.run import checkpoint, conduct, memory, record
from onecycle.run.job import Job
from onecycle.training import loop
from onecycle.training.state import create

GROUPS = 'groups=[{match="*",optimizer="%s",weight_decay=0.05}]'
OPTIMIZERS = {
    "sgd": ("optimizers={sgd={momentum=0.9}}", GROUPS % "sgd"),
    "adam": ("optimizers={adam={momentum=0.8,beta2=0.9,eps=1e-3}}", GROUPS % "adam"),
    "adamw": ("optimizers={adamw={momentum=0.8,beta2=0.9,eps=1e-3}}", GROUPS % "adamw"),
}
AT = 5  # the step that is spoilt, of 9


def spoil_loss(state, monkeypatch, value=torch.inf):
    real = loop.F.cross_entropy

    def spoilt(*arguments, **options):
        loss = real(*arguments, **options)
        return loss * value if state.step == AT - 1 else loss

    monkeypatch.setattr(loop.F, "cross_entropy", spoilt)


def spoil_loss_with_nan(state, monkeypatch):
    spoil_loss(state, monkeypatch, torch.nan)


def spoil_one_gradient(state, monkeypatch):
    """A single number of one gradient, as an overflow in half precision makes it."""

    def hook(gradient):
        if state.step == AT - 1:
            gradient = gradient.clone()
            gradient.view(-1)[0] = torch.inf
        return gradient

    state.model.prep.norm.weight.register_hook(hook)


def spoil_statistics(state, monkeypatch):
    """A variance too large for its type leaves loss and gradients finite."""
    update = loop._update

    def spoilt(work, state, *rest):
        if state.step == AT - 1:
            state.model.layer2.norm.step[1, 0] = torch.inf
        return update(work, state, *rest)

    monkeypatch.setattr(loop, "_update", spoilt)


def bits(state):
    return {
        name: sha256_bytes(value.detach().contiguous().view(-1).numpy().tobytes())
        for name, value in state.tensors().items()
    }


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(
    "spoil", [spoil_loss, spoil_loss_with_nan, spoil_one_gradient, spoil_statistics]
)
def test_a_step_that_is_not_finite_and_all_after_it_change_no_bit(
    tiny, make_recipe, machine, monkeypatch, kind, spoil
):
    """Parameters, running statistics and moments are those of the step before, to the end."""
    recipe = make_recipe(*OPTIMIZERS[kind])
    state = create(recipe, tiny, machine, seed=0)
    spoil(state, monkeypatch)
    seen, losses = [bits(state)], []
    for step in loop.fit(state, tiny, recipe, machine, seed=0):
        seen.append(bits(state))
        losses.append(bool(torch.isfinite(step.loss)))
    assert len({json.dumps(each) for each in seen[:AT]}) == AT, "steps before it changed something"
    assert all(each == seen[AT - 1] for each in seen[AT:])
    assert losses == [True] * (AT - 1) + [False] * (9 - AT + 1), "each dropped step says so"


@pytest.mark.parametrize("flush", [1, 4, 100])
def test_the_message_names_step_rate_and_checkpoint_and_nothing_poisoned_is_saved(
    tiny, make_recipe, machine, monkeypatch, tmp_path, flush
):
    """Also where figures are read only now and then, as on a GPU."""
    monkeypatch.setattr(conduct, "FLUSH", {"cpu": flush})
    create_ = conduct.states.create

    def spoilt(*arguments):
        state = create_(*arguments)
        spoil_loss(state, monkeypatch)
        return state

    monkeypatch.setattr(conduct.states, "create", spoilt)
    recipe = make_recipe("epochs=9")
    job = Job(recipe, tiny, machine, 0, tmp_path, save_every="2steps")
    with pytest.raises(DivergedError) as stopped:
        for _ in conduct.conduct(job):
            pass
    text = str(stopped.value)
    assert stopped.value.exit_code == 4
    lr = loop.timetable(recipe, len(tiny.train)).lr(AT - 1)
    assert f"at step {AT} (loss inf, lr {lr:.3g})" in text
    assert "step-00000004.safetensors" in text and "\n" not in text
    kept = checkpoint.newest(tmp_path)
    assert kept.step == 4
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())
    lines = (tmp_path / record.EVENTS).read_bytes()
    assert lines.endswith(b"\n")
    steps = [e for e in map(json.loads, lines.splitlines()) if e["event"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, AT))


def test_weights_that_are_not_finite_are_never_saved(tiny, make_recipe, machine, tmp_path):
    """The last update of a run can overflow with no later loss to tell of it."""
    state = create(make_recipe(), tiny, machine, seed=0)
    saver = checkpoint.Saver(tmp_path)
    saver.save(state, {})
    state.step = 7
    with torch.no_grad():
        state.model.fc.weight[0, 0] = torch.nan
    with pytest.raises(DivergedError, match=r"model.fc.weight .* step 7.*step-00000000"):
        saver.save(state, {})
    assert sorted(p.name for p in saver.folder.iterdir()) == [
        "step-00000000.json",
        "step-00000000.safetensors",
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:12],
)
def test_running_out_of_memory_names_the_batch_size_and_what_to_change(make_recipe, machine, error):
    with pytest.raises(OnecycleError) as stopped, memory.explained(make_recipe(), machine):
        raise error
    text = str(stopped.value)
    assert "batch_size 32" in text and "--set batch_size=16" in text and "\n" not in text
    assert stopped.value.exit_code == 1


def test_the_allocator_of_the_cpu_is_understood_and_other_errors_are_not_touched(
    make_recipe, machine
):
    with pytest.raises(OnecycleError, match="batch_size"), memory.explained(make_recipe(), machine):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="size"), memory.explained(make_recipe(), machine):
        torch.ones(2) + torch.ones(3)


def test_a_run_that_runs_out_of_memory_ends_in_that_line_and_keeps_its_batch(
    tmp_path, monkeypatch, command
):
    gradients = loop._gradients

    def greedy(work, *rest):
        if work.step == 3:
            torch.empty(2**55)  # more than any machine has, asked of the real allocator
        return gradients(work, *rest)

    monkeypatch.setattr(loop, "_gradients", greedy)
    monkeypatch.setattr(short_runs.setup, "load", short_runs.data)
    monkeypatch.setattr(short_runs.estimate, "seconds", lambda *_: 0.0)
    small = [word for setting in short_runs.SMALL for word in ("--set", setting)]
    words = ["train", "--recipe", "davidnet", *small, "--data", "short", "--precision", "fp32"]
    code, out, err = command(*words, "--save-every", "1step", "--out", "run", "-q")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "batch_size 8" in err and "--set batch_size=4" in err
    assert checkpoint.newest(tmp_path / "run").step == 3
    assert onecycle.load("run").recipe.batch_size == 8
