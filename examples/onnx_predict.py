"""What is on a picture, by a file of `onecycle export RUN`: onnx_predict.py model.onnx PICTURE."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
picture = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGBA")
opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
size = [int(about["image_size"])] * 2
square = ImageOps.fit(opaque.convert("RGB"), size, Image.Resampling.LANCZOS)
(probabilities,) = session.run(["probabilities"], {"pixels": np.asarray(square)[None]})
best = probabilities[0].argmax()
print(json.loads(about["classes"])[best], f"{probabilities[0, best]:.2%}")
