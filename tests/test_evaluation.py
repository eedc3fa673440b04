"""Figures of predictions agree with hand-made cases and with other ways to compute them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.calibration import calibration_curve
from sklearn.metrics import classification_report

from onecycle.evaluation import calibration, metrics, predict
from onecycle.evaluation.judge import judge
from onecycle.evaluation.predict import probabilities
from onecycle.evaluation.temperature import fit_temperature, with_temperature
from onecycle.evaluation.views import VIEWS, describe
from onecycle.machine import Machine
from onecycle.model.build import build

# Six images of three classes, the third without any, taken for: 0 0 1, 1 1 2.
HAND = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.3, 0.6, 0.1],
        [0.1, 0.9, 0.0],
        [0.2, 0.7, 0.1],
        [0.1, 0.4, 0.5],
    ],
    dtype=np.float32,
)
HAND_LABELS = np.array([0, 0, 0, 1, 1, 1])


def predictions(classes=7, images=400, seed=0, sharpness=2.0):
    """Random probabilities, right more often than not, with their labels and logits."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images)
    logits = draw.normal(size=(images, classes))
    logits[np.arange(images), labels] += sharpness
    return torch.from_numpy(logits).softmax(1).numpy().astype(np.float32), labels, logits


def wilson(hits, trials, z=1.959963984540054):
    share = hits / trials
    middle = share + z**2 / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return ((middle - reach) / (1 + z**2 / trials), (middle + reach) / (1 + z**2 / trials))


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (3, 3), (7, 10), (9094, 10_000)])
def test_intervals_are_wilsons(hits, trials):
    assert metrics.interval(hits, trials) == pytest.approx(wilson(hits, trials), abs=1e-9)


def test_six_images_by_hand():
    found = judge(HAND, HAND_LABELS, ("a", "b", "c"))
    assert found["accuracy"] == 4 / 6
    assert found["accuracy_low"] == pytest.approx(wilson(4, 6)[0])
    assert found["confusion"] == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    a, b, c = found["classes"]
    assert (a["support"], a["recall"], a["precision"]) == (3, 2 / 3, 1)
    assert a["f1"] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert (b["recall"], b["precision"]) == (2 / 3, 2 / 3)
    assert b["precision_high"] == pytest.approx(wilson(2, 3)[1])
    assert c == {"class": "c", "support": 0} | {k: None for k in c if k not in ("class", "support")}
    expected = -np.log([0.8, 0.6, 0.3, 0.9, 0.7, 0.4]).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert [(row["actual"], row["predicted"]) for row in found["most_confused"]] == [
        ("a", "b"),
        ("b", "c"),
    ]
    assert found["most_confused"][0]["share"] == 1 / 3
    assert "top5_accuracy" not in found


def test_a_class_that_is_never_predicted_has_no_precision():
    always_first = np.tile(np.array([[0.9, 0.1]], dtype=np.float32), (4, 1))
    first, second = metrics.per_class(always_first, np.array([0, 0, 0, 1]), ("a", "b"))
    assert first["precision"] == 0.75 and first["recall"] == 1
    assert math.isnan(second["precision"]) and second["recall"] == 0 and second["f1"] == 0


def test_classes_agree_with_sklearns_report():
    p, labels, _ = predictions()
    report = classification_report(labels, p.argmax(1), output_dict=True)
    for i, row in enumerate(metrics.per_class(p, labels, tuple("abcdefg"))):
        other = report[str(i)]
        for mine, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert row[mine] == pytest.approx(other[theirs], rel=1e-12)
        assert row["support"] == other["support"]


def test_confusion_and_top5_agree_with_counting():
    p, labels, _ = predictions()
    counts = np.zeros((7, 7), dtype=int)
    among_five = 0
    for row, label in zip(p, labels, strict=True):
        counts[label, row.argmax()] += 1
        among_five += label in sorted(range(7), key=lambda i: -row[i])[:5]
    assert (metrics.confusion(p, labels) == counts).all()
    found = judge(p, labels, tuple("abcdefg"))
    assert found["top5_accuracy"] == among_five / len(labels)
    assert found["top5_accuracy_low"] == pytest.approx(wilson(among_five, len(labels))[0])
    assert found["accuracy"] == np.trace(counts) / len(labels)
    shares = metrics.row_shares(counts)
    assert shares.sum(axis=1) == pytest.approx(np.ones(7))
    worst = found["most_confused"][0]
    off = counts - np.diag(np.diag(counts))
    assert worst["images"] == off.max()


def test_losses_are_the_cross_entropy_of_each_image():
    p, labels, logits = predictions()
    each = metrics.losses(p, labels)
    expected = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), reduction="none")
    assert each == pytest.approx(expected.numpy(), rel=1e-4)
    assert each.mean() == pytest.approx(metrics.loss(p, labels), rel=1e-6)
    assert np.isfinite(metrics.losses(np.array([[0, 1]], dtype=np.float32), np.array([0]))).all()


def test_calibration_by_hand():
    """Confidences .8 .6 .6 .9 .7 .5 lie in bins 12, 9, 9, 13, 10 and 7 of 0 to 14."""
    bins = calibration.reliability(HAND, HAND_LABELS)
    filled = {i: (row["images"], row["accuracy"]) for i, row in enumerate(bins) if row["images"]}
    assert filled == {7: (1, 0), 9: (2, 0.5), 10: (1, 1), 12: (1, 1), 13: (1, 1)}
    by_hand = (0.5 + 2 * 0.1 + 0.3 + 0.2 + 0.1) / 6
    assert calibration.expected_error(bins) == pytest.approx(by_hand, rel=1e-6)
    assert math.isnan(bins[0]["accuracy"]) and math.isnan(bins[0]["confidence"])


def test_bins_agree_with_sklearns_curve():
    p, labels, _ = predictions()
    right = p.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, p.max(1), n_bins=calibration.BINS)
    bins = calibration.reliability(p, labels)
    filled = [row for row in bins if row["images"]]
    assert [row["accuracy"] for row in filled] == pytest.approx(accuracy)
    assert [row["confidence"] for row in filled] == pytest.approx(confidence)
    assert sum(row["images"] for row in bins) == len(labels)


def test_certain_predictions_are_in_the_last_bin():
    certain = np.array([[1, 0], [0, 1]], dtype=np.float32)
    bins = calibration.reliability(np.nextafter(certain, 2), np.array([0, 0]))
    assert bins[-1]["images"] == 2 and bins[-1]["accuracy"] == 0.5


def test_the_temperature_that_logits_were_divided_by_is_found_again():
    """Labels drawn from the probabilities themselves are calibrated at temperature 1."""
    draw = np.random.default_rng(0)
    logits = torch.from_numpy(draw.normal(size=(20_000, 5)))
    honest = logits.softmax(1).numpy()
    labels = (honest.cumsum(axis=1) < draw.random((20_000, 1))).sum(axis=1).clip(0, 4)
    bold = (logits * 3).softmax(1).numpy().astype(np.float32)
    temperature = fit_temperature(bold, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    cooled = with_temperature(bold, temperature)
    assert cooled == pytest.approx((logits * 3 / temperature).softmax(1).numpy(), abs=1e-5)
    found = judge(bold, labels, tuple("abcde"), (bold, labels))["calibration"]
    assert found["ece_with_temperature"] < 0.02 < 0.1 < found["ece"]
    for other in (0.97, 1.03):
        nearby = metrics.loss(with_temperature(bold, temperature * other), labels)
        assert nearby > metrics.loss(cooled, labels)


@pytest.mark.parametrize("sharpness", [0, 5, 50, 200])
def test_where_every_image_is_right_no_temperature_is_best(sharpness):
    p, _, _ = predictions(sharpness=sharpness)
    found = judge(p, p.argmax(1), tuple("abcdefg"), (p, p.argmax(1)))["calibration"]
    assert found["temperature"] is None and "no finite" in found["temperature_note"]


def test_a_certain_mistake_costs_as_much_in_the_mean_as_alone():
    p = np.array([[1 - 1e-7, 1e-30], [0.5, 0.5]], dtype=np.float32)
    each = metrics.losses(p, np.array([1, 0]))
    assert each[0] == pytest.approx(30 * math.log(10), rel=1e-5)
    assert metrics.loss(p, np.array([1, 0])) == pytest.approx(each.mean())


def test_the_figures_are_a_pure_function():
    p, labels, _ = predictions()
    before = p.copy(), labels.copy()
    assert judge(p, labels, tuple("abcdefg")) == judge(p, labels, tuple("abcdefg"))
    assert (p == before[0]).all() and (labels == before[1]).all()


def test_views_are_airbenchs():
    """Its own way, on (N, C, H, W): reflect by a pixel, then cut out at two corners."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    nchw = images.permute(0, 3, 1, 2).float()
    padded = F.pad(nchw, (1, 1, 1, 1), "reflect")
    expected = [
        (weight, seen.flip(-1) if flip else seen)
        for weight, seen in (
            (0.25, nchw),
            (0.125, padded[:, :, 2:10, 2:10]),
            (0.125, padded[:, :, 0:8, 0:8]),
        )
        for flip in (False, True)
    ]
    for view, (weight, seen) in zip(VIEWS["crop"], expected, strict=True):
        assert view.weight == weight
        assert (view.of(images).permute(0, 3, 1, 2) == seen).all()
    for views in VIEWS.values():
        assert sum(view.weight for view in views) == 1


def test_logits_of_the_views_are_averaged(tiny, make_recipe, machine):
    model = build(make_recipe().model, tiny, seed=0).eval()
    images = torch.from_numpy(tiny.test.images())
    with torch.no_grad():
        expected = (0.5 * model(images) + 0.5 * model(images.flip(2))).softmax(1)
    found = probabilities(model, tiny.test, machine, "flip")
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert "2 views" in describe("flip") and "no test-time" in describe("none")


def test_in_bf16_threads_share_out_the_batches(make_data, make_recipe, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", {"cpu": 5})
    data = make_data(16)
    model = build(make_recipe("model.name=speednet", "model.width=32").model, data, seed=0)
    exact = probabilities(model, data.test, Machine("cpu", "fp32", 1, ""), "crop")
    one, two = (
        probabilities(model, data.test, Machine("cpu", "bf16", threads, ""), "crop")
        for threads in (1, 2)
    )
    assert np.array_equal(one, two) and 0 < np.abs(one - exact).max() < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_predicting_leaves_mode_and_random_states_alone(tiny, make_recipe, machine, training):
    model = build(make_recipe().model, tiny, seed=0).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    probabilities(model, tiny.test, machine, "crop")
    assert model.training is training
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
