"""Maps of where a network looked are Grad-CAM by hand, and leave the network alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onecycle.errors import OnecycleError
from onecycle.evaluation.cam import class_maps, last_stage
from onecycle.model.build import build


@pytest.mark.parametrize(
    ("name", "stage", "size", "centers"),
    [
        ("davidnet", "layer3", 16, [3.5, 11.5]),  # each place sees around its own 8 pixels
        ("speednet", "layer3", 32, [4, 12, 20]),  # its maps of 31, 15 and 7 lose their last row
        ("resnet18", "layer4", 32, [0, 8, 16, 24]),  # strided convolutions see around each 8th
    ],
)
def test_maps_are_grad_cam_by_hand(make_data, make_recipe, name, stage, size, centers):
    """Gradients averaged over places weigh the channels; what is below zero is nothing."""
    data = make_data(size=size, train=9, test=5)
    recipe = make_recipe(f"model.name={name}", "model.width=8")
    model = build(recipe.model, data, seed=0).eval()
    images, targets = data.test.images(0, 5), np.array([0, 1, 2, 1, 0])
    kept = {}
    hook = model.get_submodule(stage).register_forward_hook(lambda *given: kept.update(x=given[2]))
    logits = model(torch.from_numpy(images))
    hook.remove()
    (slope,) = torch.autograd.grad(logits[range(5), targets].sum(), kept["x"])
    maps = F.relu((slope.mean((2, 3), keepdim=True) * kept["x"]).sum(1)).detach().numpy()

    def between(values):
        return np.interp(np.arange(size), centers, values)

    expected = np.apply_along_axis(between, 2, np.apply_along_axis(between, 1, maps))
    found = class_maps(model, images, targets, "cpu")
    assert found.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * found.max())


def test_maps_leave_the_network_and_random_states_alone(tiny, make_recipe):
    model = build(make_recipe().model, tiny, seed=0).train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    class_maps(model, tiny.test.images(0, 2), np.array([0, 1]), "cpu")
    assert model.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("size", "head"), [(16, "max"), (32, "gap"), (64, "gap")])
def test_the_last_stage_is_layer3_whatever_the_head(make_data, make_recipe, size, head):
    data = make_data(size=size, train=9, test=3)
    model = build(make_recipe(f"model.head={head}").model, data, seed=0)
    assert last_stage(model, data.test.images(0, 1), "cpu") == "layer3"


def test_any_network_with_convolutions_has_a_last_stage():
    class Nhwc(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.body = nn.Sequential(*layers)

        def forward(self, x):
            return self.body(x.permute(0, 3, 1, 2).float())

    images = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    first, last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 6)
    plain = Nhwc(first, nn.ReLU(), last, nn.Flatten(), nn.Linear(4, 2))
    assert last_stage(plain, images, "cpu") == "body.0", "the other gives maps of a single pixel"
    with pytest.raises(OnecycleError, match="no convolution"):
        last_stage(Nhwc(nn.Flatten(), nn.Linear(192, 2)), images, "cpu")
