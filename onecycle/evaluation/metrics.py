"""Figures as pure functions of probabilities (N, classes) and labels (N,)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Top-1 accuracy, a fraction."""
    return float(accuracy_score(labels, probabilities.argmax(axis=1)))


def loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats, without label smoothing."""
    classes = np.arange(probabilities.shape[1])
    exact = probabilities.astype(np.float64)
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=classes))
