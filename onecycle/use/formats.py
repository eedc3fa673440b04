"""A trained network as the bytes of a file for other programs, and how such bytes are run."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn

from onecycle import files
from onecycle.errors import need
from onecycle.model.build import build
from onecycle.recipe import book
from onecycle.run import record, reopen
from onecycle.use.classifier import Classifier, Trained

FORMATS = ("onnx", "pt2", "safetensors")
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # for ONNX, all in one extra
EXAMPLE = 2  # images that the network is traced with; their number stays free
DETAILS = "onecycle.json"  # the file inside a .pt2 with what the others have as metadata

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def metadata(trained: Trained) -> dict[str, str]:
    """What a file says of itself: a text for each key; lists and the recipe are JSON."""
    summary = files.read_json(trained.folder / record.SUMMARY)
    recipe = book.find(str(trained.folder / record.RECIPE))
    size, classes = trained.image_size, len(trained.classes)
    version = files.read_json(trained.folder / record.ENVIRONMENT)["versions"]["onecycle"]
    return {
        "trained_with": f"onecycle {version}",
        "input": f"pixels: uint8 (N, {size}, {size}, 3), RGB of 0-255, upright, transparency on "
        f"white, 16-bit grey divided by 257, the shorter side scaled to {size}, the centre cut out",
        "output": f"probabilities: fp32 (N, {classes}), softmax of logits / temperature; one view, "
        "no test-time augmentation",
        "classes": json.dumps(trained.classes),
        "image_size": str(size),
        "temperature": repr(trained.model.temperature),
        "calibration": trained.calibration,
        "recipe_digest": recipe.digest(),
        "recipe": json.dumps(recipe.to_dict()),
        "data": summary["data"],
        "data_digest": summary["data_digest"],
        "test_accuracy": repr(summary["test_accuracy"]),
    }


def packed(trained: Trained, form: str, details: dict[str, str]) -> bytes:
    """The file of `trained`, which is on the CPU, in one of `FORMATS`, with `details` inside.

    ONNX and PT2 hold the whole way from pixels to probabilities; safetensors the weights alone,
    from which `recipe` in its details builds the network. Raises MissingExtraError.
    """
    return {"onnx": _onnx, "pt2": _pt2, "safetensors": _safetensors}[form](trained, details)


def runner(trained: Trained, form: str, content: bytes, threads: int) -> Predict:
    """What the file `content` makes of pixels (N, S, S, 3): probabilities (N, classes)."""
    if form == "onnx":
        return _onnx_runner(content, threads)
    if form == "pt2":
        return _eager(torch.export.load(io.BytesIO(content)).module())
    return _eager(_rebuilt(trained, content))


def _onnx(trained: Trained, details: dict[str, str]) -> bytes:
    onnx, *_ = (need(name, "export", "export to ONNX") for name in NEEDED)
    with _hushed():
        program = torch.onnx.export(
            trained.model,
            (_example(trained),),
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamic_shapes={"pixels": {0: "batch"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo=True
    model = program.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]  # where in this machine's files each came from
    for value in (*model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.helper.set_model_props(model, details)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _onnx_runner(content: bytes, threads: int) -> Predict:
    runtime = need("onnxruntime", "export", "a run of ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(["probabilities"], {"pixels": pixels})[0]
        return found

    return predict


def _pt2(trained: Trained, details: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with _hushed():
        batch = torch.export.Dim("batch", min=1)
        shapes = {"pixels": {0: batch}}
        program = torch.export.export(trained.model, (_example(trained),), dynamic_shapes=shapes)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # where in this machine's files each came from
        torch.export.save(program, content, extra_files={DETAILS: json.dumps(details)})
    return content.getvalue()


def _safetensors(trained: Trained, details: dict[str, str]) -> bytes:
    weights = {k: v.contiguous() for k, v in trained.model.network.state_dict().items()}
    return save(weights, metadata=details)


def _rebuilt(trained: Trained, content: bytes) -> nn.Module:
    """The classifier that is in a safetensors file, made without the run's own weights."""
    recipe = book.find(str(trained.folder / record.RECIPE))
    network = build(recipe.model, reopen.images(trained.folder), seed=0)
    network.load_state_dict(load(content))
    return Classifier(network, trained.temperature).eval()


def _eager(module: Callable[[torch.Tensor], torch.Tensor]) -> Predict:
    @torch.inference_mode()
    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = module(torch.from_numpy(pixels)).numpy()
        return found

    return predict


def _example(trained: Trained) -> torch.Tensor:
    return torch.zeros(EXAMPLE, trained.image_size, trained.image_size, 3, dtype=torch.uint8)


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what torch's exporters tell of their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
