"""Several processes see what one sees, compute what one computes, and survive losing one."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onecycle.datasets import augment
from onecycle.evaluation.predict import probabilities
from onecycle.ranks import ALONE, Ranks
from onecycle.training.loop import share
from onecycle.training.state import create

RECIPE = ["--data", "digits", "--set", "model.width=4", "--set", "batch_size=64"]
RECIPE += ["--set", "ghost_batch=16", "--precision", "fp32", "--threads", "1"]
# Adam divides by the gradient's size, and so makes much of the order in which floats are added.
SGD = ["--set", "optimizers={sgd={momentum=0.9}}"]
SGD += ["--set", "schedule.lr_start=1e-4", "--set", "schedule.lr_peak=1e-3"]
SGD += ["--set", 'groups=[{match="*",optimizer="sgd",weight_decay=1e-3}]']


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_sees_the_same_images_for_a_hundred_steps(tiny, make_recipe, world):
    recipe = make_recipe("batch_size=10", "ghost_batch=2")  # 10 steps of an epoch, the last short
    pixels, rows = torch.from_numpy(tiny.train.pixels), torch.from_numpy(tiny.train.rows)
    fill = torch.zeros(3, dtype=torch.uint8)

    def seen(ranks, plan, batch):
        mine = batch[share(len(batch), recipe.ghost_batch, ranks).images]
        images = augment.apply(recipe.augment, pixels, rows[mine], mine, plan, fill)
        return mine.tolist(), images.numpy().tobytes()

    steps = 0
    for epoch in range(10):
        plan = augment.draw(recipe.augment, len(tiny.train), tiny.image_size, 7, epoch)
        for batch in plan.order.split(recipe.batch_size):
            ids, content = seen(ALONE, plan, batch)
            parts = [seen(Ranks(rank, world), plan, batch) for rank in range(world)]
            assert [i for part, _ in parts for i in part] == ids
            joined = hashlib.sha256(b"".join(part for _, part in parts)).hexdigest()
            assert joined == hashlib.sha256(content).hexdigest()
            steps += 1
    assert steps == 100


def environment(**changes):
    return os.environ | {"OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in changes.items()}


def alone(*arguments):
    command = [sys.executable, "-m", "onecycle", "train", *RECIPE, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment())


def together(world, *arguments, places=None, **told):
    """The processes of a run on this machine, started as torchrun would, each at its place."""
    return side_by_side(world, ["-m", "onecycle", "train", *arguments], places, **told)


def side_by_side(world, arguments, places=None, **told):
    """Python with `arguments`, as many times as torchrun would start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, **told}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(RANK=rank, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=world, **common),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=places[rank] if places else None,
        )
        for rank in range(world)
    ]


def test_fewer_images_than_processes_are_judged_by_each(tiny, make_recipe, machine):
    state = create(make_recipe(), tiny, machine, seed=0)
    one = tiny.test.subset(np.arange(1))
    for rank in range(2):
        found = probabilities(state.model, one, machine, ranks=Ranks(rank, 2))
        np.testing.assert_array_equal(found, probabilities(state.model, one, machine))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"WORLD_SIZE": 2}, "RANK=''"), ({"WORLD_SIZE": ""}, "WORLD_SIZE=''")],
    ids=["no rank", "empty"],
)
def test_an_environment_that_torchrun_did_not_make_is_said(tmp_path, given, said):
    command = [sys.executable, "-m", "onecycle", "train", *RECIPE, "--out", "run"]
    done = subprocess.run(command, env=environment(**given), capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert f"the environment's {said} is not what torchrun sets" in done.stderr
    assert done.stderr.count("\n") == 1


def steps_of(folder):
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "step"]


def wait_for_step(folder, step, processes):
    while not (folder / "events.jsonl").exists() or len(steps_of(folder)) < step:
        assert all(process.poll() is None for process in processes), "it ended too early"
        time.sleep(0.02)


def test_two_processes_train_and_judge_as_one_does(tmp_path):
    """The last batch of an epoch is a single image, which leaves nothing for the second."""
    batches = [*SGD, "--set", "batch_size=359", "--set", "ghost_batch=90", "--epochs", "1"]
    alone(*batches, "--out", "one")
    processes = together(2, *RECIPE, *batches, "--out", "two", "--json")
    outcomes = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert [bool(out) for out, _ in outcomes] == [True, False], "one prints"
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    first, second = (steps_of(tmp_path / name) for name in ("one", "two"))
    assert [(e["step"], e["lr"], e["images"]) for e in first] == [
        (e["step"], e["lr"], e["images"]) for e in second
    ]
    np.testing.assert_allclose(
        [e["loss"] for e in second], [e["loss"] for e in first], rtol=1e-3, atol=1e-4
    )
    kept = [np.load(tmp_path / name / "test_probabilities.npy") for name in ("one", "two")]
    np.testing.assert_allclose(kept[0], kept[1], atol=2e-3)
    assert kept[0].shape == kept[1].shape == (360, 10)


def test_a_signal_to_one_of_two_saves_and_both_leave(tmp_path):
    processes = together(2, *RECIPE, "--epochs", "50", "--out", "stopped", "-q")
    wait_for_step(tmp_path / "stopped", 3, processes)
    processes[1].send_signal(signal.SIGINT)
    # About 3 s on a quiet machine; the limit is for a loaded one.
    outcomes = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [130, 130], outcomes
    step = int(re.search(r"saved at step (\d+)", outcomes[0][1])[1])
    assert (tmp_path / "stopped" / "checkpoints" / f"step-{step:08d}.json").exists()
    command = [sys.executable, "-m", "onecycle", "train", "--resume", "stopped"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "trained by 2 processes, not 1" in refused.stderr


def test_a_run_folder_that_only_one_of_two_can_see_is_said_by_both(tmp_path):
    """After a restart one would go on with the run, and the other begin it."""
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    processes = together(2, *RECIPE, "--epochs", "50", "--out", "run", places=places)
    wait_for_step(places[0] / "run", 3, processes)
    for process in processes:
        process.kill()
        process.communicate()
    restarted = together(2, *RECIPE, "--out", "run", places=places, TORCHELASTIC_RESTART_COUNT=1)
    outcomes = [process.communicate(timeout=60) for process in restarted]
    assert [process.returncode for process in restarted] == [2, 2], outcomes
    assert all("on a disk that all nodes can read" in err for _, err in outcomes)


def test_who_ends_without_a_run_has_left_the_others_first():
    """The threads of a group that is still open would abort some of the processes."""
    script = (
        "import atexit, torch.distributed as dist\n"
        "from onecycle.ranks import join\n"
        "atexit.register(lambda: print(dist.is_initialized()))\n"  # the last to be asked
        "join('cpu')\n"
        "assert dist.is_initialized()\n"
    )
    for process in side_by_side(2, ["-c", script]):
        assert process.communicate(timeout=60)[0] == "False\n"


def test_a_gradient_that_one_of_two_lost_is_dropped_by_both():
    script = (
        "import torch\n"
        "from onecycle import machine\n"
        "from onecycle.datasets.load import load\n"
        "from onecycle.ranks import join\n"
        "from onecycle.recipe import book\n"
        "from onecycle.training import loop, state as states\n"
        "where, data, ranks = machine.choose('cpu', 'fp32', 1), load('digits'), join('cpu')\n"
        "recipe = book.change(book.find('digits'), ['model.width=4', 'ghost_batch=16'])\n"
        "state = states.create(recipe, data, where, seed=0)\n"
        "weight = next(state.model.parameters())\n"
        "before = weight.detach().clone()\n"
        "lost = [float('inf')]\n"
        "if ranks.rank == 1:\n"
        "    weight.register_hook(lambda gradient: gradient + (lost.pop() if lost else 0))\n"
        "step = next(loop.fit(state, data, recipe, where, seed=0, ranks=ranks))\n"
        "print(bool(torch.isfinite(step.loss)), torch.equal(weight, before))\n"
    )
    for process in side_by_side(2, ["-c", script]):
        out, err = process.communicate(timeout=60)
        assert out == "False True\n", err


def test_torchrun_restarts_a_killed_process_and_the_run_goes_on(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", "1", "-m", "onecycle", "train"]
    command += [*RECIPE, "--epochs", "3", "--out", "lived", "--json"]
    run = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_step(tmp_path / "lived", 5, [run])
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert json.loads(out)["steps"] == 69 and json.loads(out)["processes"] == 2
    events = (tmp_path / "lived" / "events.jsonl").read_text()
    assert '"event": "resume"' in events
    assert [event["step"] for event in steps_of(tmp_path / "lived")] == list(range(1, 70))
