"""The fuzz of recipes and checkpoints: only documented errors come out, and nothing is written."""

import copy
import datetime
import json
import math
import tomllib

import cifar_files
import numpy as np
import tomli_w
import watching

from onecycle import files
from onecycle.errors import OnecycleError, RecipeError
from onecycle.recipe import book
from onecycle.recipe.schema import parse
from onecycle.run import checkpoint, conduct
from onecycle.training.schedule import timetable
from onecycle.training.state import create

LONGEST = 1000  # characters of a message


def deep(levels):
    """Lists within lists."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


STRANGE = (
    *(None, True, False, -1, 0, 1, 10**30, -(2**63), 0.5, 1e-320, 1e308, math.nan, math.inf),
    *("", "x\ny", "\x1b[31m", "\0", "ü" * 5000, "*", "sgd", "1e", "../../x", [], {}, [[]]),
    *({"": 1}, {"kind": "one_cycle"}, deep(200), list(range(2000)), datetime.date(2020, 1, 1)),
)
WORDS = ("nan", "inf", "-1", "0", "1e999", "9" * 5000, "[" * 3000, "{a=1}", '"', "'x'", "\n", "")
WORDS += ("2020-01-01", "0x10", "1_0", "true", "[1]", "é", "\x00", "a=b=c", '"""', "=", "none")


def places(tree, path=()):
    """The path of each value in `tree`."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


def changed_tree(tree, draw):
    """A copy of `tree` with up to three values replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.integers(1, 4)):
        here, known = tree, list(places(tree))
        *path, last = known[draw.integers(len(known))]
        strange = copy.deepcopy(STRANGE[draw.integers(len(STRANGE))])
        for key in path:
            here = here[key]
        match draw.integers(4):
            case 0:
                del here[last]
            case 1 if isinstance(here, dict):
                here[f"{last}{draw.integers(3)}"] = strange
            case _:
                here[last] = strange
    return tree


def assignment(tree, draw):
    """A `key=value` that means something, or nearly."""
    known = list(places(tree))
    key = ".".join(map(str, known[draw.integers(len(known))]))
    value = WORDS[draw.integers(len(WORDS))]
    if draw.random() < 0.3:
        place = draw.integers(len(key) + 1)
        key = key[:place] + WORDS[draw.integers(len(WORDS))] + key[place:]
    return f"{key}={value}" if draw.random() < 0.95 else key + value


def ways_to_a_recipe(count, draw, folder):
    """Functions that read `count` mutated recipes: TOML, JSON, trees and assignments, in turn."""
    recipes = [book.find(name) for name in book.names()]
    texts = [book.text(name).encode() for name in book.names()]
    texts += [tomli_w.dumps(recipe.to_dict()).encode() for recipe in recipes]
    kept = [json.dumps({"recipe": recipe.to_dict()}).encode() for recipe in recipes]
    for number in range(count):
        of = draw.integers(len(recipes))
        tree = recipes[of].to_dict()
        match number % 4:
            case 0 | 1 as kind:
                path = folder / ("r.toml", "r.json")[kind]
                content = (texts, kept)[kind]
                (damaged,) = cifar_files.mutations(content[of], draw, 1)
                path.write_bytes(damaged)
                yield lambda path=path: book.find(str(path))
            case 2:
                broken = changed_tree(tree, draw)
                yield lambda broken=broken: parse(broken, "recipe x")
            case _:
                words = [assignment(tree, draw) for _ in range(draw.integers(1, 3))]
                yield lambda words=words, of=of: book.change(recipes[of], words)


def recipes(count, folder, seed=0):
    """How many of `count` mutated recipes are taken; each is whole, can be kept and be followed."""
    taken = 0
    for read in ways_to_a_recipe(count, np.random.default_rng(seed), folder):
        try:
            with watching.acts() as seen:
                recipe = read()
        except RecipeError as error:
            text = str(error)
            assert len(text.splitlines()) == 1 and len(text) < LONGEST, text[:200]
        else:
            again = tomllib.loads(tomli_w.dumps(recipe.to_dict()))
            assert parse(again, "again") == recipe
            table = timetable(recipe, 50_000)
            for step in (0, table.total_steps // 2, table.total_steps - 1):
                assert math.isfinite(table.lr(step))
            taken += 1
        assert not seen, seen
    return taken


def checkpoints(count, folder, tiny, recipe, machine, seed=0):
    """How many of `count` mutated checkpoints are taken over; else the one before is, or none.

    The checksums of half of them hold, as those of a hostile one would.
    """
    state = create(recipe, tiny, machine, seed=0)
    saver = checkpoint.Saver(folder)
    extra = {"recipe_digest": "r", "data_digest": "d", "journal_bytes": 0}
    for state.step in (8, 9):
        saver.save(state, {**extra, "seconds": 1.0, "train_seconds": 1.0})
    meta, tensors = (saver.folder / f"step-00000009.{end}" for end in ("json", "safetensors"))
    whole = {path: path.read_bytes() for path in (meta, tensors)}
    draw, table, taken = np.random.default_rng(seed), timetable(recipe, len(tiny.train)), 0
    for number in range(count):
        path = (tensors, meta)[number % 4 == 3]
        (damaged,) = cifar_files.mutations(whole[path], draw, 1)
        path.write_bytes(damaged)
        if number % 2:
            rechecked(meta, tensors)
        with watching.acts() as seen:
            kept = checkpoint.newest(folder)
            if kept.step == 9:
                try:
                    conduct._take_over(state, kept, table)
                    taken += 1
                except OnecycleError as error:
                    assert len(str(error).splitlines()) == 1 and len(str(error)) < LONGEST
        assert not seen, seen
        assert kept.step == 9 or (kept.step == 8 and "step-00000009" in kept.damaged[0])
        path.write_bytes(whole[path])
        if number % 2:
            meta.write_bytes(whole[meta])
    return taken


def rechecked(meta, tensors):
    """Put checksums into the JSON `meta` that hold, if there is still a table in it."""
    try:
        content = json.loads(meta.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        content.pop(checkpoint.CHECKSUM, None)
        content["sha256"] = files.sha256_file(tensors)
        content[checkpoint.CHECKSUM] = files.sha256_bytes(files.json_bytes(content))
        meta.write_bytes(files.json_bytes(content))
