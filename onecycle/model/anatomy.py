"""A network layer by layer: shapes, parameters, receptive fields, multiply-adds, activations."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from onecycle.model.layers import GhostBatchNorm, Normalize

WORDS = {
    "AdaptiveAvgPool2d": "global average pool",
    "AdaptiveMaxPool2d": "global max pool",
    "AvgPool2d": "average pool",
    "Conv2d": "conv",
    "Conv3x3": "conv",
    "Dropout": "dropout",
    "GhostBatchNorm": "batch norm",
    "Linear": "fully connected",
    "MaxPool2d": "max pool",
    "Normalize": "standardize",
    "Whitening": "whitening conv",
    "relu": "ReLU",
    "silu": "SiLU",
}
PASSED_ON = {"Identity", "flatten", "float"}  # they give what they get
BYTES = 4  # of a number in fp32


@dataclass(frozen=True)
class Layer:
    """One step of a network's forward pass, for one image in evaluation mode."""

    name: str
    kind: str
    inputs: tuple[int, ...]  # positions of the layers that it takes its input from
    shape: tuple[int, ...]  # of its output: (C, H, W), or (classes,)
    parameters: int
    receptive_field: int  # side in input pixels of the square that an output number depends on
    first_center: float  # the middle of that square for the first row's numbers, in input rows
    effective_stride: int  # input rows from there to the middle for the next row's
    multiply_adds: int  # of convolutions and matrix products
    activation_mb: float  # its output in fp32, in 10**6 bytes


def layers(model: nn.Module, image_size: int) -> list[Layer]:
    """The layers of `model` in the order in which they are computed, for images of that size.

    The receptive field is what can be reached through kernels, strides, dilations and paddings,
    over every branch; it may be larger than the image, beyond which lies padding. The model may
    be on the meta device, where nothing is computed. Its training mode is left as it was.
    """
    training = model.training
    device = next(model.parameters()).device
    pixels = torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8, device=device)
    try:
        graph = _Tracer().trace(model.eval())
        _Measured(fx.GraphModule(model, graph)).run(pixels)
    finally:
        model.train(training)
    return _rows(graph, dict(model.named_modules()))


class _Tracer(fx.Tracer):
    """Follows a network down to torch's own layers and ours."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        ours = isinstance(module, GhostBatchNorm | Normalize | nn.Conv2d)
        return ours or super().is_leaf_module(module, name)


class _Measured(fx.Interpreter):
    """Runs a graph, and notes the output's shape and the multiply-adds in each node's `meta`."""

    @torch.no_grad()
    def run_node(self, node: fx.Node) -> Any:
        with FlopCounterMode(display=False) as operations:
            output = super().run_node(node)
        node.meta["shape"] = tuple(output.shape[1:])
        node.meta["multiply_adds"] = operations.get_total_flops() // 2
        return output


@dataclass(frozen=True)
class _Reach:
    """Output row i depends on the input rows from i * step + low to i * step + high."""

    low: int = 0
    high: int = 0
    step: int = 1


def _rows(graph: fx.Graph, modules: dict[str, nn.Module]) -> list[Layer]:
    """The layers of a measured graph."""
    rows: list[Layer] = []
    place: dict[fx.Node, tuple[int, ...]] = {}  # where the layer that made a node's value stands
    reach: dict[fx.Node, _Reach] = {}
    for node in graph.nodes:
        sources = node.all_input_nodes
        inputs = tuple(i for source in sources for i in place[source])
        reach[node] = _union([reach[source] for source in sources])
        place[node] = inputs
        if node.op in ("placeholder", "output"):
            continue
        module = modules[str(node.target)] if node.op == "call_module" else None
        word = type(module).__name__ if module else getattr(node.target, "__name__", node.target)
        if word in PASSED_ON:
            continue
        if module:
            reach[node] = _through(module, reach[node], sources[0].meta["shape"])
        place[node] = (len(rows),)
        rows.append(
            Layer(
                name=str(node.target) if module else f"{_owner(node)}{word}",
                kind=_kind(word, module),
                inputs=inputs,
                shape=node.meta["shape"],
                parameters=sum(p.numel() for p in module.parameters()) if module else 0,
                receptive_field=reach[node].high - reach[node].low + 1,
                first_center=(reach[node].low + reach[node].high) / 2,
                effective_stride=reach[node].step,
                multiply_adds=node.meta["multiply_adds"],
                activation_mb=prod(node.meta["shape"]) * BYTES / 1e6,
            )
        )
    return rows


def _union(reaches: list[_Reach]) -> _Reach:
    """What is reached over all of several branches, which have the same step."""
    if not reaches:
        return _Reach()
    low, high = min(each.low for each in reaches), max(each.high for each in reaches)
    return _Reach(low, high, reaches[0].step)


def _through(module: nn.Module, before: _Reach, shape: tuple[int, ...]) -> _Reach:
    """What is reached through `module`, whose input has `shape`, from what `before` reaches."""
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        kernel, stride, padding, dilation = shape[-1], shape[-1], 0, 1
    elif hasattr(module, "kernel_size"):
        sizes = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        kernel, stride, padding, dilation = (_side(size) for size in sizes)
    else:
        return before
    low = before.low - before.step * padding
    high = before.high + before.step * (dilation * (kernel - 1) - padding)
    return _Reach(low, high, before.step * stride)


def _kind(word: str, module: nn.Module | None) -> str:
    """What a layer does, in words."""
    kind = WORDS.get(word, word)
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        size = _side(module.kernel_size)
        kind += f" {size}x{size}"
    if isinstance(module, nn.Conv2d):
        named = {"stride": _side(module.stride), "dilation": _side(module.dilation)}
        kind += "".join(f", {name} {value}" for name, value in named.items() if value > 1)
        kind += f", {module.groups} groups" if module.groups > 1 else ""
    return f"{kind} {module.p:g}" if isinstance(module, nn.Dropout) else kind


def _owner(node: fx.Node) -> str:
    """The path of the module in whose forward pass a function is called, with a dot after it."""
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return f"{modules[-1][0]}." if modules else ""


def _side(size: Any) -> int:
    """The rows of a size that is one number, or rows and columns."""
    return int(size if isinstance(size, int) else size[0])
