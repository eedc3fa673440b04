"""Picture files of many kinds made in memory, and the fuzz that damages them."""

import io

import cifar_files
import numpy as np
from PIL import Image

from onecycle.datasets import decode


def noise(size=(16, 16), seed=0):
    """An RGB image of noise."""
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), np.uint8))


def encoded(image, kind="png", **options):
    """`image` as the bytes of a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def exif(orientation):
    """EXIF data that turn a picture."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def pixels(content, size=16):
    """What the file `content` is taken for."""
    found = decode.look(content, size).pixels
    assert not isinstance(found, str), found
    return found


def kinds(size=(40, 24)):
    """A file of each kind that the fuzz damages."""
    rgb, other = noise(size), noise(size, seed=1)
    palette = rgb.quantize(16)
    return {
        "jpeg": encoded(rgb, "jpeg", exif=exif(6)),
        "progressive jpeg": encoded(rgb, "jpeg", progressive=True),
        "cmyk jpeg": encoded(rgb.convert("CMYK"), "jpeg"),
        "mpo": encoded(rgb, "mpo", save_all=True, append_images=[other]),
        "png": encoded(rgb, exif=exif(8)),
        "palette png": encoded(palette, transparency=bytes([0, 100, 255])),
        "16-bit png": encoded(Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40))),
        "apng": encoded(rgb, save_all=True, append_images=[other]),
        "gif": encoded(palette, "gif", transparency=1, save_all=True, append_images=[other]),
        "webp": encoded(rgb, "webp", exif=exif(3)),
        "lossless webp": encoded(rgb.convert("RGBA"), "webp", lossless=True),
        "bmp": encoded(rgb, "bmp"),
        "ppm": encoded(rgb, "ppm"),
        "tiff": encoded(rgb, "tiff"),
    }


def fuzz(content, count, seed=0):
    """How many of `count` damaged copies are still taken; the others have a reason in one line."""
    taken = 0
    for damaged in cifar_files.mutations(content, np.random.default_rng(seed), count):
        found = decode.look(damaged, 16).pixels
        if isinstance(found, str):
            assert found and found.isprintable() and " at 0x" not in found
        else:
            assert found.shape == (16, 16, 3) and found.dtype == np.uint8
            taken += 1
    return taken
