"""Everything that is said of a split's predictions, gathered into one plain tree."""

from typing import Any

import numpy as np

from onecycle.evaluation import calibration, metrics
from onecycle.evaluation.likelihood import Labels, Probabilities
from onecycle.evaluation.temperature import fit_temperature, with_temperature

ENOUGH_FOR_TOP5 = 6  # classes


def judge(
    probabilities: Probabilities,
    labels: Labels,
    classes: tuple[str, ...],
    validation: tuple[Probabilities, Labels] | None = None,
) -> dict[str, Any]:
    """The content of `evaluation.json`, proportions as fractions, n/a as None.

    `validation` holds the probabilities and labels of a validation part, on which the temperature
    is fitted. A pure function of its arguments.
    """
    images = len(labels)
    figures: dict[str, Any] = {"images": images}
    figures |= _share("accuracy", metrics.accuracy(probabilities, labels), images)
    if len(classes) >= ENOUGH_FOR_TOP5:
        figures |= _share("top5_accuracy", metrics.top5_accuracy(probabilities, labels), images)
    counts = metrics.confusion(probabilities, labels)
    figures |= {
        "loss": metrics.loss(probabilities, labels),
        "interval_confidence": metrics.CONFIDENCE,
        "calibration": _calibration(probabilities, labels, validation),
        "most_confused": metrics.most_confused(counts, classes),
        "classes": metrics.per_class(probabilities, labels, classes),
        "confusion": counts.tolist(),
    }
    plain: dict[str, Any] = _plain(figures)
    return plain


def _share(name: str, share: float, images: int) -> dict[str, float]:
    return {**metrics.proportion(name, round(share * images), images), name: share}


def _calibration(
    probabilities: Probabilities,
    labels: Labels,
    validation: tuple[Probabilities, Labels] | None,
) -> dict[str, Any]:
    bins = calibration.reliability(probabilities, labels)
    found: dict[str, Any] = {
        "ece": calibration.expected_error(bins),
        "bins": calibration.BINS,
        "temperature": None,
        "temperature_note": "no validation part to fit a temperature on",
        "ece_with_temperature": None,
        "reliability": bins,
    }
    if validation is None:
        return found
    found["temperature_note"] = f"fitted on {len(validation[1]):,} validation images"
    temperature = fit_temperature(*validation)
    if temperature is None:
        found["temperature_note"] += ", on which no finite temperature is best"
        return found
    scaled = with_temperature(probabilities, temperature)
    after = calibration.expected_error(calibration.reliability(scaled, labels))
    return found | {"temperature": temperature, "ece_with_temperature": after}


def _plain(value: Any) -> Any:
    """`value` with None in the place of NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value
