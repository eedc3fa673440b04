"""Checkpoints that the tests save and damage."""

import numpy as np

from onecycle.run import checkpoint

EXTRA = {
    "recipe_digest": "r",
    "data_digest": "d",
    "journal_bytes": 0,
    "seconds": 1.0,
    "train_seconds": 1.0,
}


def saved(state, folder, steps=(8, 9)):
    saver = checkpoint.Saver(folder)
    for state.step in steps:
        saver.save(state, EXTRA)
    return saver.folder


def damage(folder, changes, seed=0):
    """`changes` random bit flips and a tenth as many truncations of step 9; who was refused how."""
    draw = np.random.default_rng(seed)
    pair = [folder / "step-00000009.safetensors", folder / "step-00000009.json"]
    whole = {path: path.read_bytes() for path in pair}
    for i in range(changes + changes // 10):
        path = pair[i % 4 == 0]  # a quarter of the changes hit the small JSON
        content = bytearray(whole[path])
        if i < changes:
            content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        else:
            del content[draw.integers(len(content)) :]
        path.write_bytes(content)
        yield checkpoint.newest(folder.parent)
        path.write_bytes(whole[path])
