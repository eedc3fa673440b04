"""Each network is the plain one that its docstring names, with our batch norm in it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onecycle.model.build import build, parameter_count
from onecycle.model.layers import Statistics, norms
from onecycle.model.whitening import Whitening
from onecycle.recipe import book
from onecycle.recipe.schema import ModelSpec
from onecycle.training import state as states
from onecycle.training.loop import fit


def plain_block(inputs, outputs, *, bias, pool=True):
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)]
    layers += [nn.MaxPool2d(2)] if pool else []
    return [*layers, nn.BatchNorm2d(outputs), nn.ReLU()]


class Plus(nn.Module):
    """x + f(x), and what comes after the sum."""

    def __init__(self, f, shortcut=None, after=None):
        super().__init__()
        self.f, self.shortcut, self.after = f, shortcut, after

    def forward(self, x):
        y = self.f(x) + (self.shortcut(x) if self.shortcut else x)
        return self.after(y) if self.after else y


def plain_davidnet(width, classes, conv_bias="none", fc_bias=False, head="max"):
    plain, inner = conv_bias in ("plain", "all"), conv_bias == "all"

    def residual(channels):
        inside = plain_block(channels, channels, bias=inner, pool=False)
        inside += plain_block(channels, channels, bias=inner, pool=False)
        return Plus(nn.Sequential(*inside))

    return nn.Sequential(
        *plain_block(3, width, bias=plain, pool=False),
        *plain_block(width, 2 * width, bias=plain),
        residual(2 * width),
        *plain_block(2 * width, 4 * width, bias=plain),
        *plain_block(4 * width, 8 * width, bias=plain),
        residual(8 * width),
        nn.MaxPool2d(4),
        *([nn.AdaptiveAvgPool2d(1)] if head == "gap" else []),
        nn.Flatten(),
        nn.Linear(8 * width, classes, bias=fc_bias),
    )


def plain_resnet18(width, classes):
    def block(inputs, outputs, stride):
        return Plus(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outputs),
            ),
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride > 1
            else None,
            nn.ReLU(),
        )

    blocks, inputs = [], width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        blocks += [block(inputs, outputs, stride), block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def plain_dilated(width, classes, dropout=0.0):
    def after(channels):
        return [nn.ReLU(), nn.BatchNorm2d(channels), nn.Dropout(dropout)]

    a, b, c = width, 2 * width, 4 * width
    return nn.Sequential(
        *[nn.Conv2d(3, a, 3, padding=1), *after(a)],
        *[nn.Conv2d(a, a, 3, padding=1), *after(a)],
        *[nn.Conv2d(a, b, 3, padding=2, dilation=2), *after(b)],
        nn.MaxPool2d(2),
        *[nn.Conv2d(b, b, 3, padding=2, dilation=2), *after(b)],
        *[nn.Conv2d(b, b, 3, padding=2, dilation=2), *after(b)],
        *[nn.Conv2d(b, c, 3, padding=1, groups=b), nn.Conv2d(c, c, 1), *after(c)],
        nn.MaxPool2d(2),
        *[nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Conv2d(c, c, 1), *after(c)],
        *[nn.Conv2d(c, c, 3, padding=2, dilation=2), *after(c)],
        nn.MaxPool2d(2),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(c, classes),
    )


class Frozen(nn.BatchNorm2d):
    """Batch norm without a scale."""

    def __init__(self, channels):
        super().__init__(channels)
        del self.weight
        self.register_buffer("weight", torch.ones(channels), persistent=False)


def plain_speednet(width, classes):
    stem = nn.Conv2d(3, 24, 2, bias=False)
    filters = stem.weight.detach()
    del stem.weight
    stem.register_buffer("weight", filters)
    layers, inputs = [stem, nn.SiLU()], 24
    for outputs, residual in ((width, 1), (4 * width, 1), (8 * width, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [Frozen(outputs), nn.SiLU()]
        inner = []
        for _ in range(residual):
            inner += [nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)]
            inner += [Frozen(outputs), nn.SiLU()]
        layers += [Plus(nn.Sequential(*inner))]
        inputs = outputs
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(inputs, classes, bias=False)
    )


PLAIN = {
    "speednet": plain_speednet,
    "davidnet": plain_davidnet,
    "dilated": plain_dilated,
    "resnet18": plain_resnet18,
}
VARIANTS = [
    *(
        ("davidnet", {"conv_bias": conv_bias, "fc_bias": fc_bias, "head": head})
        for conv_bias in ("none", "plain", "all")
        for fc_bias in (False, True)
        for head in ("max", "gap")
    ),
    ("dilated", {}),
    ("dilated", {"dropout": 0.3}),
    ("resnet18", {}),
    ("speednet", {}),
]
CLASSES = 7


def copy(ours, plain):
    """Give `plain` the weights of `ours`, and both the same running statistics."""
    with torch.no_grad():
        for theirs, parameter in zip(plain.parameters(), ours.parameters(), strict=True):
            theirs.copy_(parameter.uniform_(-0.3, 0.5))
        if hasattr(ours, "stem") and isinstance(ours.stem, Whitening):
            plain[0].weight.copy_(ours.stem.weight)
        for theirs, norm in zip(batch_norms(plain), norms(ours), strict=True):
            theirs.running_mean.copy_(norm.running_mean.uniform_(-1, 1))
            theirs.running_var.copy_(norm.running_var.uniform_(0.5, 2))


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def pair(make_data, name, fields):
    """Our network and the plain one with the same weights, and normalized images for the latter."""
    data = make_data(32, CLASSES, train=8, test=1)
    torch.manual_seed(0)
    ours = build(ModelSpec(name=name, width=4, **fields), data, seed=1)
    plain = PLAIN[name](4, CLASSES, **fields)
    copy(ours, plain)
    pixels = torch.from_numpy(data.train.images())
    mean, std = (torch.tensor(each, dtype=torch.float32) for each in (data.mean, data.std))
    return ours, plain, pixels, ((pixels - mean) / std).permute(0, 3, 1, 2)


def assert_close(a, b, tolerance=1e-5):
    scale = float(b.detach().abs().max())
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(scale, 1e-6))


@pytest.mark.parametrize(("name", "fields"), VARIANTS)
def test_logits_are_those_of_the_plain_network(make_data, name, fields):
    ours, plain, pixels, normalized = pair(make_data, name, fields)
    assert_close(ours.eval()(pixels), plain.eval()(normalized))


@pytest.mark.parametrize(("name", "fields"), [v for v in VARIANTS if "dropout" not in v[1]])
def test_a_step_on_the_whole_batch_is_that_of_torchs_batch_norm(make_data, name, fields):
    ours, plain, pixels, normalized = pair(make_data, name, fields)
    ours, plain = ours.double().train(), plain.double().train()
    labels = torch.arange(len(pixels)) % CLASSES
    outputs = ours.forward(pixels), plain(normalized.double())
    for output in outputs:
        F.cross_entropy(output, labels).backward()
    assert_close(outputs[0], outputs[1].float())
    for theirs, parameter in zip(plain.parameters(), ours.parameters(), strict=True):
        assert_close(parameter.grad, theirs.grad)
    for theirs, norm in zip(batch_norms(plain), norms(ours), strict=True):
        Statistics(norm).fold(len(pixels), dropped=torch.tensor(False))
        assert_close(norm.running_mean, theirs.running_mean)
        assert_close(norm.running_var, theirs.running_var)


@pytest.mark.parametrize(
    ("name", "width", "count"),
    [("dilated", 32, 288_234), ("resnet18", 64, 11_173_962), ("speednet", 32, 1_678_656)],
)
def test_parameter_counts_are_the_references(make_data, name, width, count):
    with torch.device("meta"):
        model = build(ModelSpec(name=name, width=width), make_data(classes=10), seed=0)
    assert parameter_count(model) == count


@pytest.mark.parametrize("name", ["dilated", "resnet18", "speednet"])
@pytest.mark.parametrize("size", [16, 24, 128])
def test_any_size_and_number_of_classes(make_data, name, size):
    for classes in (2, 100):
        data = make_data(size, classes, train=4, test=1)
        logits = build(ModelSpec(name=name, width=2), data, 0)(torch.from_numpy(data.test.images()))
        assert logits.shape == (1, classes) and logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", list(PLAIN))
def test_ghost_groups_are_normalised_apart_in_every_network(make_data, name):
    data = make_data(16, train=8, test=1)
    pixels = torch.from_numpy(data.train.images())
    together, apart = (build(ModelSpec(name=name, width=2), data, 0).train() for _ in range(2))
    for norm in norms(together):
        norm.groups = 2
    outputs = together(pixels), torch.cat([apart(half) for half in pixels.split(4)])
    assert_close(*outputs)
    assert not torch.allclose(outputs[0], apart(pixels), atol=1e-3)


@pytest.mark.parametrize("name", list(PLAIN))
def test_batch_norms_can_be_told_apart_by_name(make_data, name):
    model = build(ModelSpec(name=name, width=2), make_data(train=8, test=1), 0)
    named = {parameter for key, parameter in model.named_parameters() if ".norm." in key}
    assert named == {parameter for norm in norms(model) for parameter in norm.parameters()}


# The first and the last number of prep.conv.weight and of fc.weight.
FIRST_WEIGHTS = {
    0: [-0.00144083926, -0.14844766259, 0.14231981337, -0.15307570994],
    7: [0.01344169211, -0.06206237525, 0.10560029745, -0.13822859526],
}


@pytest.mark.parametrize("seed", [0, 7])
def test_davidnets_first_weights_are_those_of_its_release(make_data, seed):
    model = build(ModelSpec(name="davidnet", width=4), make_data(classes=10), seed)
    weights = [model.prep.conv.weight.detach().flatten(), model.fc.weight.detach().flatten()]
    found = [weight[i].item() for weight in weights for i in (0, -1)]
    assert found == pytest.approx(FIRST_WEIGHTS[seed], rel=1e-6)


@pytest.mark.parametrize("name", book.names())
def test_every_recipe_trains(make_data, machine, name):
    data = make_data(32, CLASSES, train=28, test=7)
    small = ["model.width=2", "batch_size=14"]
    recipe = book.change(book.find(name), small, epochs=2)
    state = states.create(recipe, data, machine, seed=0)
    before = [parameter.clone() for parameter in state.model.parameters()]
    losses = [float(step.loss) for step in fit(state, data, recipe, machine, seed=0)]
    assert len(losses) == 4 and np.isfinite(losses).all()
    moved = [not torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True)]
    assert all(moved)
    for norm in norms(state.model):
        assert norm.running_mean.any() and torch.isfinite(norm.running_var).all()
