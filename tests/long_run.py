"""A run with all that could be lost, to be broken off; and one hash of all that it has learned."""

from dataclasses import replace
from itertools import islice

import torch

from onecycle.files import sha256_bytes
from onecycle.training.loop import fit
from onecycle.training.state import create

NATIVE_BF16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
STEPS = 60  # 3 epochs of 20 batches, the last of one image


def digest(state):
    """One hash of the step and every bit of the state."""
    parts = [f"{state.step}"]
    for name, tensor in sorted(state.tensors().items()):
        content = tensor.detach().contiguous().view(-1).numpy().tobytes()
        parts.append(f"{name} {sha256_bytes(content)}")
    return sha256_bytes("\n".join(parts).encode())


def copied(tensors):
    return {name: value.detach().clone() for name, value in tensors.items()}


class Long:
    """A run with all that could be lost: ghost batches, dropout, cycling momentum, bf16."""

    def __init__(self, data, recipe, machine):
        self.data, self.recipe = data, recipe
        self.machine = replace(machine, precision="bf16" if NATIVE_BF16 else "fp32")
        torch.set_num_threads(self.machine.threads)

    def fresh(self):
        return create(self.recipe, self.data, self.machine, seed=1)

    def loaded(self, tensors, step):
        state = self.fresh()
        state.load(copied(tensors), step)
        return state

    def go_on(self, state, steps=None):
        """Take `steps` steps more, or all that are left; the digest of what came of it."""
        for _ in islice(self.fit(state), steps):
            pass
        return digest(state)

    def fit(self, state):
        return fit(state, self.data, self.recipe, self.machine, seed=1)
