"""Layers of a network: torchinfo counts the same, and receptive fields are what gradients reach."""

from dataclasses import asdict

import pytest
import torch
import torchinfo
from torch import nn

from onecycle.model import anatomy
from onecycle.model.build import build, parameter_count
from onecycle.model.layers import GhostBatchNorm
from onecycle.recipe import book
from onecycle.recipe.schema import ModelSpec
from onecycle.reporting import architecture

NETWORKS = {"davidnet": 64, "dilated": 32, "resnet18": 64, "speednet": 32}  # and their widths
STAGES = ("layer1.x", "layer1.residual", "layer2", "layer3.x", "layer3.residual")


def make(make_data, name, width=2, size=32, **fields):
    data = make_data(size, classes=10, train=10, test=10)
    return build(ModelSpec(name=name, width=width, **fields), data, seed=0)


def on_meta(make_data, name, size=32, **fields):
    with torch.device("meta"):
        return make(make_data, name, NETWORKS[name], size, **fields)


def by_module(rows):
    """The last layer of each name, and of each module that holds it."""
    found = {}
    for row in rows:
        parts = row.name.split(".")
        for depth in range(1, len(parts) + 1):
            found[".".join(parts[:depth])] = row
    return found


def fields_of(rows, key="receptive_field"):
    """A figure of each of them."""
    return {name: getattr(row, key) for name, row in by_module(rows).items()}


@pytest.mark.parametrize(
    ("name", "fields", "stated"),
    [
        (
            "davidnet",
            {},
            {
                "prep": 3,
                "layer1.x": 6,
                "layer1.residual.first": 10,
                "layer1.residual.second": 14,
                "layer1": 14,
                "layer2": 20,
                "layer3.x": 32,
                "layer3.residual.first": 48,
                "layer3.residual.second": 64,
                "layer3": 64,
                "pool": 88,
                "fc": 88,
            },
        ),
        ("davidnet", {"head": "gap"}, {"layer3": 64, "pool": 88}),
        ("dilated", {"dropout": 0.1}, {"layer1": 10, "layer2": 32, "layer3": 60, "pool": 84}),
        (
            "resnet18",
            {},
            {"stem": 3, "layer1": 11, "layer2": 25, "layer3": 53, "layer4": 109, "pool": 133},
        ),
    ],
)
def test_receptive_fields_are_the_references(make_data, name, fields, stated):
    found = fields_of(anatomy.layers(on_meta(make_data, name, **fields), 32))
    assert {key: found[key] for key in stated} == stated


def linear(model):
    """`model` with averages for maxima and equal positive weights, so that nothing cancels."""
    model.normalize = nn.Identity()
    for parent in list(model.modules()):
        for key, module in list(parent.named_children()):
            if isinstance(module, nn.MaxPool2d):
                setattr(parent, key, nn.AvgPool2d(module.kernel_size))
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 1 / module.weight[0].numel())
                module.bias = None
    return model.double().eval()


def extent(output, image):
    """First and last row and column of `image` that the middle of `output` (N, C, H, W) sees."""
    middle = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
    reached = (gradient[0].sum(0) > 0).nonzero()
    return reached.min(0).values.tolist(), reached.max(0).values.tolist()


def stated_extent(row, output):
    """The same by what is said of the layer: the middle of the field, and its side."""
    center = row.first_center + row.effective_stride * (output.shape[2] // 2)
    half = (row.receptive_field - 1) / 2
    return [center - half] * 2, [center + half] * 2


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_are_what_the_gradient_reaches(make_data, name):
    stated = by_module(anatomy.layers(make(make_data, name, width=1), 32))
    model = linear(make(make_data, name, width=1))
    outputs = {}
    for key, module in model.named_modules():
        if key.startswith(("layer", "stem", "prep")) and not isinstance(
            module, GhostBatchNorm | nn.ReLU | nn.Identity
        ):
            module.register_forward_hook(lambda _, __, out, key=key: outputs.update({key: out}))
    image = torch.ones(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    model(image)
    assert len(outputs) > 15
    for key, output in outputs.items():
        assert extent(output, image) == stated_extent(stated[key], output), key
    last = outputs[[key for key in outputs if key.count(".") == 0][-1]]
    pooled = nn.functional.avg_pool2d(last, 3 if name == "speednet" else 4)
    first, last = extent(pooled, image)
    assert last[0] - first[0] + 1 == stated["pool"].receptive_field


def test_a_pool_over_the_whole_map_sees_more_of_a_larger_image(make_data):
    for size, field in ((16, 32 + 4 * 8 + 8), (32, 88), (64, 64 + 7 * 8)):
        found = fields_of(anatomy.layers(on_meta(make_data, "davidnet", size), size))
        assert found["pool"] == field


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [32, 48])
def test_shapes_parameters_and_operations_are_torchinfos(make_data, name, size):
    model = make(make_data, name, NETWORKS[name], size)
    rows = {row.name: row for row in anatomy.layers(model, size)}
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    theirs = torchinfo.summary(model, input_data=pixels, verbose=0, depth=9)
    names = {id(module): key for key, module in model.named_modules()}
    checked = 0
    for info in theirs.summary_list:
        row = rows.get(names[id(info.module)])
        if row is None:
            continue
        checked += 1
        assert row.shape == tuple(info.output_size[1:])
        assert row.parameters == info.num_params
        # torchinfo counts no operations for a layer without parameters, the whitening stem.
        if isinstance(info.module, nn.Conv2d) and info.module.bias is None and row.parameters:
            assert row.multiply_adds == info.macs
    assert checked > 18
    assert sum(row.parameters for row in rows.values()) == theirs.total_params


def test_davidnet_costs_379_million_multiply_adds(make_data):
    rows = anatomy.layers(on_meta(make_data, "davidnet"), 32)
    assert sum(row.multiply_adds for row in rows) == pytest.approx(379.3e6, abs=0.05e6)
    stages = [sum(r.multiply_adds for r in rows if r.name.startswith(s)) for s in STAGES]
    assert stages == pytest.approx([75.5e6] * 5, abs=0.05e6)


@pytest.mark.parametrize("name", book.names())
def test_every_recipe_has_its_layers(make_data, name):
    recipe = book.find(name)
    with torch.device("meta"):
        model = build(recipe.model, make_data(32, classes=10, train=10, test=10), seed=0)
    rows = anatomy.layers(model, 32)
    assert sum(row.parameters for row in rows) == parameter_count(model)
    assert rows[0].inputs == () and rows[-1].shape == (10,)
    assert all(max(row.inputs) < i for i, row in enumerate(rows) if i)
    numbers = sum(torch.Size(row.shape).numel() for row in rows)
    assert sum(row.activation_mb for row in rows) == pytest.approx(numbers * 4 / 1e6)


def test_the_model_is_left_as_it_was(make_data):
    model = make(make_data, "davidnet", dropout=0.5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rows = anatomy.layers(model, 32)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.device("meta"):
        assert rows == anatomy.layers(make(make_data, "davidnet", dropout=0.5), 32)


def drawn(make_data, name, **fields):
    rows = [asdict(row) for row in anatomy.layers(on_meta(make_data, name, **fields), 32)]
    return architecture.picture(rows, name)


@pytest.mark.parametrize(
    ("name", "fields", "blocks", "arcs"),
    [
        ("davidnet", {}, 11, [""] * 2),
        ("davidnet", {"dropout": 0.25, "head": "gap"}, 11, [""] * 2),
        ("dilated", {"dropout": 0.1}, 11, []),
        ("resnet18", {}, 20, ["", "", "8,448", "", "33,280", "", "132,096", ""]),
    ],
)
def test_the_picture_has_every_block_and_branch_and_no_text_on_another(
    make_data, name, fields, blocks, arcs
):
    figure = drawn(make_data, name, **fields)
    (axes,) = figure.axes
    boxes = [p for p in axes.patches if type(p).__name__ == "FancyBboxPatch"]
    assert len(boxes) == blocks and len(axes.patches) - blocks == len(arcs)
    labels = [text.get_text() for text in axes.texts[-len(arcs) :]] if arcs else []
    for label, said in zip(labels, arcs, strict=True):
        assert said in label and bool(said) == bool(label)
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    places = [t.get_window_extent(renderer) for t in axes.texts if t.get_text()]
    for i, place in enumerate(places):
        assert figure.bbox.contains(place.x0, place.y0) and figure.bbox.contains(*place.max)
        assert not any(place.overlaps(other) for other in places[:i])
    inside = axes.transData.transform((architecture.BOX, 0))[0]
    ends = [place.x1 for place in places if place.x0 < inside]
    assert max(ends) < inside


def test_the_table_adds_up(make_data):
    rows = [asdict(row) for row in anatomy.layers(on_meta(make_data, "davidnet"), 32)]
    lines = architecture.table(rows).split("\n\n")[0].splitlines()
    assert len(lines) == len(rows) + 2
    assert lines[-1].split() == ["total", "6,573,120", "88", "379.3", "3.553"]
    assert len({len(line) for line in lines[1:]}) == 1
