"""What every figure is made of: probabilities (N, classes), labels (N,), and finite logarithms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]

TINY = float(np.finfo(np.float32).tiny)  # a smaller probability counts as this


def log(probabilities: Probabilities) -> NDArray[np.float64]:
    """Natural logarithms: of an image's probabilities, its logits up to a constant."""
    logarithms: NDArray[np.float64] = np.log(probabilities.astype(np.float64).clip(TINY, 1))
    return logarithms
