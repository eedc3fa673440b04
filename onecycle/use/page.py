"""The demo page: a picture in, its likeliest classes and where the network looked out (gradio)."""

import atexit
import base64
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onecycle.datasets import decode
from onecycle.errors import DataError, need
from onecycle.evaluation.cam import class_maps
from onecycle.reporting.gallery import Picture, enlarged
from onecycle.use.classifier import Trained
from onecycle.use.guard import App
from onecycle.use.prediction import Prediction, predictions

TOP = 5  # classes that are shown


@dataclass(frozen=True)
class Answer:
    """What a network says of a picture, and `seen` (h, w, 3): the pixels it was given, enlarged,
    beside them in grey with its activation map for the likeliest class."""

    prediction: Prediction
    seen: NDArray[np.uint8]


def answer(trained: Trained, content: bytes) -> Answer:
    """What `trained` says of the image file `content`. Raises DataError, MissingExtraError."""
    pixels = decode.look(content, trained.image_size).pixels
    if isinstance(pixels, str):
        raise DataError(f"this picture can't be used: {pixels}")
    (prediction,) = predictions(trained, [pixels], TOP)
    target = np.array([trained.classes.index(prediction.label)])
    device = trained.machine.device
    heat = class_maps(trained.model.network, pixels[None].copy(), target, device)[0]
    picture = Picture(pixels, 0, "", "", prediction.label, prediction.probability, 0.0, heat)
    return Answer(prediction, enlarged(picture))


def page(trained: Trained) -> tuple[App, Path]:
    """The page as an ASGI application, without any guard, and where it keeps what is uploaded.

    Nothing is told to anybody: no analytics, no share, no fonts or scripts from elsewhere.
    Raises MissingExtraError.
    """
    need("captum", "demo", "the demo page")
    folder = _folder()
    gradio: Any = need("gradio", "demo", "the demo page")
    fastapi: Any = need("fastapi", "demo", "the demo page")
    with gradio.Blocks(title=f"onecycle: {trained.folder.name}", analytics_enabled=False) as blocks:
        with gradio.Row():
            picture = gradio.Image(
                sources=["upload", "clipboard"],
                label="Drop or paste a picture",
                height=360,
            )
            with gradio.Column():
                label = gradio.Label(num_top_classes=TOP, label=_title(trained))
                seen = gradio.HTML()
        # Without a queue a question is one request with one answer. gradio's preprocessing would
        # decode the picture, whatever its kind and size.
        outputs = [label, seen]
        picture.change(
            _look(trained), picture, outputs, preprocess=False, queue=False, show_progress="hidden"
        )
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    made: App = gradio.mount_gradio_app(
        app,
        blocks,
        path="",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
    )
    return made, folder


@cache
def _folder() -> Path:
    """Where gradio keeps uploads: a folder of this process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="onecycle-demo-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    return folder


def _look(
    trained: Trained,
) -> Callable[[dict[str, Any] | None], tuple[dict[str, float] | None, str]]:
    """The function behind the page, from an upload to what its two outputs show."""
    one_at_a_time = Lock()  # a class activation map hooks into the network

    def look(upload: dict[str, Any] | None) -> tuple[dict[str, float] | None, str]:
        if upload is None:
            return None, ""
        with one_at_a_time:
            found = answer(trained, Path(upload["path"]).read_bytes())
        return dict(found.prediction.top), _shown(found.seen)

    return look


def _shown(seen: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(seen).save(content, format="PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" style="width:100%;image-rendering:pixelated" '
        'alt="what the network was given, and where it looked">'
        "<p>What the network was given, and where it looked for the likeliest class (Grad-CAM).</p>"
    )


def _title(trained: Trained) -> str:
    calibrated = "" if trained.temperature is None else "calibrated "
    return f"Likeliest classes, with {calibrated}probabilities"
