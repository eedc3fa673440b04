"""What is on a picture of 8 bits a channel: onnx_predict.py, a file of `onecycle export`, it."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
picture = ImageOps.exif_transpose(Image.open(sys.argv[2]))
opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
shape = [int(about["image_size"])] * 2
square = ImageOps.fit(opaque.convert("RGB"), shape, Image.Resampling.LANCZOS)
(probabilities,) = session.run(["probabilities"], {"pixels": np.asarray(square)[None]})
best = probabilities[0].argmax()
print(json.loads(about["classes"])[best], f"{probabilities[0, best]:.2%}")
