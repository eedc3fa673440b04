"""Memory: how much the images may take, and running out of it, explained."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from onecycle.errors import OnecycleError, RecipeError
from onecycle.machine import Machine
from onecycle.recipe.schema import Recipe

# What PyTorch's allocators say: CUDA and MPS, the CPU's, cuDNN's, oneDNN's.
SAID = re.compile(
    r"out of memory|can't allocate memory|ALLOC_FAILED|could not create a (primitive|memory)",
    re.IGNORECASE,
)

UNITS = {"MB": 10**6, "GB": 10**9}


def limit(text: str) -> int:
    """The bytes that `text` stands for, as 500MB or 2GB. Raises RecipeError."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,12})?)(MB|GB)", text.strip(), re.IGNORECASE)
    if not found:
        raise RecipeError(f"--max-memory {text}: give a size such as 500MB or 2GB")
    return int(float(found[1]) * UNITS[found[2].upper()])


@contextmanager
def explained(recipe: Recipe, machine: Machine) -> Iterator[None]:
    """Turn a lack of memory inside the block into an OnecycleError that says what to change.

    The batch is never changed silently: that would be another recipe.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not isinstance(error, MemoryError) and not SAID.search(str(error)):
            raise
        group = f"ghost_batch {recipe.ghost_batch}" if recipe.ghost_batch else "no ghost batches"
        smaller = max(1, recipe.batch_size // 2)
        raise OnecycleError(
            f"out of memory on {machine.device} with batch_size {recipe.batch_size} ({group}): "
            f"close other programs, or try --set batch_size={smaller} (another recipe: its rates "
            f"may need lowering, too) or a smaller model.width{_less(recipe)}"
        ) from error


def _less(recipe: Recipe) -> str:
    """Another way to need less: groups that can be computed one after another."""
    return "" if recipe.ghost_batch else " or --set ghost_batch=64"
