"""Brightness and contrast that vary: exact, drawn evenly, and no other choice moves."""

import numpy as np
import pytest
import torch
from scipy import stats

from onecycle.datasets import augment
from onecycle.recipe.schema import AugmentSpec

FILL = torch.zeros(3, dtype=torch.uint8)


def test_contrast_changes_about_mid_grey_and_then_brightness():
    count, ways = 40, {"pad": 2, "flip": "random", "cutout": 3}
    pixels = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8)

    def given(spec):
        plan = augment.draw(spec, count, 8, 3, 1)
        places = torch.arange(count)
        images = augment.given(spec, lambda rows: (pixels, rows), plan, places, FILL)
        return plan, images

    dark, plain = given(AugmentSpec(**ways))
    plan, images = given(AugmentSpec(**ways, brightness=0.1, contrast=0.25))
    assert dark.light is None and plain.dtype == torch.uint8 and images.dtype == torch.float32
    assert torch.equal(plan.order, dark.order) and torch.equal(plan.flip, dark.flip)
    factor, more = plan.light.double()[plan.choice].numpy().T[..., None, None, None]
    brightness = more - 127.5 * (1 - factor)
    expected = (plain.numpy() - 127.5) * factor + 127.5 + brightness
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("most", [{"contrast": 0.25}, {"brightness": 0.1}], ids=str)
def test_light_is_drawn_evenly_from_its_range_anew_in_each_epoch(most):
    spec = AugmentSpec(**most)
    first, second = (augment.draw(spec, 20_000, 32, 0, epoch).light for epoch in (0, 1))
    assert not torch.equal(first, second)
    factor, more = first.double().numpy().T
    contrast, brightness = factor - 1, (more - 127.5 * (1 - factor)) / 255
    for drawn, range_ in ((contrast, spec.contrast), (brightness, spec.brightness)):
        if range_:
            assert stats.kstest(drawn / range_, stats.uniform(-1, 2).cdf).pvalue > 1e-4
        else:
            assert np.abs(drawn).max() < 1e-6
