"""What each kind of picture becomes: pixels by hand or by Pillow, rule by rule."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_files import encoded, exif, noise, pixels
from PIL import Image, ImageOps

from onecycle.datasets import decode
from onecycle.errors import DataError

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def reason(content):
    found = decode.look(content, 16).pixels
    assert isinstance(found, str)
    return found


def on_white(colour, alpha):
    """What a colour with alpha from 0 to 255 looks like on white."""
    colour, alpha = np.asarray(colour, float), np.asarray(alpha, float)[..., None]
    return np.rint((colour * alpha + 255 * (255 - alpha)) / 255)


def png(width, height, depth, colour, rows, *chunks):
    """A PNG of raw rows, for what Pillow doesn't write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


@pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(kind, orientation):
    image = noise()
    options = {"lossless": True} if kind == "webp" else {}
    content = encoded(image, kind, exif=exif(orientation), **options)
    assert np.array_equal(pixels(content), TURNED[orientation](np.asarray(image)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_oblong_picture_is_turned_upright_too(orientation):
    content = encoded(noise((90, 60)), "jpeg", exif=exif(orientation), quality=95)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert upright.size == ((60, 90) if orientation > 4 else (90, 60))
    expected = pixels(encoded(upright), 32)
    assert np.abs(pixels(content, 32).astype(int) - expected).max() <= 1


def test_a_damaged_or_senseless_orientation_turns_nothing():
    image = noise()
    good = encoded(image, "webp", lossless=True, exif=exif(6))
    block = exif(6).tobytes().removeprefix(b"Exif\0\0")
    assert good.count(block) == 1
    for damaged in (block[:9] + b"\xff" * (len(block) - 9), b"\0" * len(block), b"II*\0" * 99):
        content = good.replace(block, damaged[: len(block)])
        assert np.array_equal(pixels(content), np.asarray(image))
    for value in (0, 9, 60000):
        assert np.array_equal(pixels(encoded(image, exif=exif(value))), np.asarray(image))


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_spread_to_three_channels(mode):
    image = noise().convert(mode)
    expected = np.asarray(image.convert("L"))
    assert np.array_equal(pixels(encoded(image)), np.repeat(expected[..., None], 3, axis=2))


def test_a_palette_is_looked_up():
    image = noise().quantize(16)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    for kind in ("png", "gif", "bmp", "tiff"):
        assert np.array_equal(pixels(encoded(image, kind)), colours[np.asarray(image)])


def test_alpha_is_put_on_white():
    rgb, alpha = noise(), noise(seed=1).convert("L")
    image = rgb.copy()
    image.putalpha(alpha)
    expected = on_white(np.asarray(rgb), np.asarray(alpha))
    assert np.array_equal(pixels(encoded(image)), expected)
    assert np.array_equal(pixels(encoded(image, "webp", lossless=True, exact=True)), expected)
    grey = rgb.convert("L")
    expected = on_white(np.asarray(grey)[..., None].repeat(3, axis=2), np.asarray(alpha))
    assert np.array_equal(pixels(encoded(Image.merge("LA", (grey, alpha)))), expected)


def test_a_palette_with_alpha_is_put_on_white():
    image = noise().convert("L").convert("PA")
    image.putpixel((3, 5), (0, 0))
    result = np.asarray(decode._rgb(image))
    assert (result[5, 3] == 255).all()
    assert np.array_equal(
        np.delete(result, 5, 0), np.delete(np.asarray(image.convert("RGB")), 5, 0)
    )


def test_a_transparent_colour_is_put_on_white():
    palette = noise().quantize(4)
    index = np.asarray(palette)
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    one_clear = np.where((index == 2)[..., None], 255, colours[index])
    for kind in ("png", "gif"):
        assert np.array_equal(pixels(encoded(palette, kind, transparency=2)), one_clear)
    alpha = np.array([0, 100, 255, 255], np.uint8)
    content = encoded(palette, transparency=alpha.tobytes())
    assert np.array_equal(pixels(content), on_white(colours[index], alpha[index]))
    rgb = noise()
    colour = rgb.getpixel((3, 5))
    expected = np.asarray(rgb).copy()
    expected[(expected == colour).all(axis=2)] = 255
    assert np.array_equal(pixels(encoded(rgb, transparency=colour)), expected)
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = pixels(encoded(Image.fromarray(grey), transparency=7))
    assert np.array_equal(result[..., 0], np.where(grey == 7, 255, grey))


@pytest.mark.parametrize(
    ("depth", "kind", "row", "value", "shown"),
    [
        (2, 0, b"\x55" * 4, (1,), 85),
        (4, 0, b"\x77" * 8, (7,), 119),
        (16, 2, b"\x12\x34\x56\x78\x9a\xbc" * 16, (0x1234, 0x5678, 0x9ABC), (0x12, 0x56, 0x9A)),
    ],
    ids=["2-bit grey", "4-bit grey", "16-bit colour"],
)
def test_a_transparent_colour_of_another_depth_is_that_colour(depth, kind, row, value, shown):
    def made(colour):
        clear = (b"tRNS", struct.pack(f">{len(colour)}H", *colour))
        return png(16, 16, depth, kind, (b"\0" + row) * 16, clear)

    other = tuple(number ^ (0x100 if depth == 16 else 1) for number in value)
    for colour, expected in ((value, 255), (other, shown)):
        content = made(colour)
        assert (pixels(content) == expected).all()
        assert (decode.square(Image.open(io.BytesIO(content)), 16) == expected).all()


def tiff(bits, photometric, content, *more):
    """A grey TIFF of 16 x 16 pixels in one strip, for what Pillow doesn't write."""
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, photometric), (277, 1), *more]
    if not more:
        tags += [(273, 8 + 2 + 12 * 9 + 4), (278, 16), (279, len(content))]
    out = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in sorted(tags):
        out += struct.pack("<HHII", tag, 4, 1, value)
    return out + bytes(4) + content


def test_grey_that_pillow_misreads_is_refused():
    assert (pixels(tiff(16, 1, b"\xff" * 512)) == 255).all()
    assert (pixels(tiff(8, 0, b"\xff" * 256)) == 0).all(), "white at zero"
    assert reason(tiff(12, 1, b"\xff" * 384)).startswith("12-bit grey in a TIFF")
    assert reason(tiff(16, 0, b"\xff" * 512)).startswith("16-bit grey in a TIFF")
    with pytest.raises(DataError, match="12-bit grey"):
        decode.square(Image.open(io.BytesIO(tiff(12, 1, b"\xff" * 384))), 16)


def test_a_tile_larger_than_any_picture_is_refused():
    content = tiff(8, 1, bytes(256), (322, 16384), (323, 16384), (324, 8), (325, 256))
    assert "a tile of 268,435,456 pixels" in reason(content)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_is_divided_by_257_and_rounded(order):
    values = np.arange(2**16).reshape(256, 256)
    expected = np.rint(values / 257)
    content = encoded(Image.fromarray(values.astype(order)), "tiff")
    assert np.array_equal(pixels(content, 256)[..., 0], expected)


def test_16_bit_grey_of_other_formats():
    values = np.arange(2**16).reshape(256, 256)
    expected = np.rint(values / 257)
    image = Image.fromarray(values.astype(np.uint16))
    assert np.array_equal(pixels(encoded(image), 256)[..., 1], expected)
    clear = np.where(values == 300, 255, expected)
    assert np.array_equal(pixels(encoded(image, transparency=300), 256)[..., 2], clear)
    pgm = b"P5 256 256 65535\n" + values.astype(">u2").tobytes()
    assert np.array_equal(pixels(pgm, 256)[..., 2], expected)
    assert np.array_equal(decode.square(Image.open(io.BytesIO(pgm)), 256)[..., 2], expected)


def test_of_16_bit_colour_the_high_byte_is_taken():
    row = b"\0" + b"\x12\x34\x56\x78\x9a\xbc" * 16
    assert (pixels(png(16, 16, 16, 2, row * 16)) == [0x12, 0x56, 0x9A]).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_known_range_are_refused(kind):
    image = Image.fromarray(np.ones((16, 16), kind))
    assert reason(encoded(image, "tiff")) == f"pixels of mode {image.mode} have no known range"


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "jpeg"), ("CMYK", "tiff"), ("YCbCr", "tiff")])
def test_other_colours_are_converted_by_pillow(mode, kind):
    # Pillow 12 can't read what it writes as a plain TIFF in YCbCr; a packed one it reads as RGB.
    packing = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    content = encoded(noise().convert(mode), kind, **packing)
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == ("RGB" if packing else mode)
        assert np.array_equal(pixels(content), np.asarray(image.convert("RGB")))
    red = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg")
    assert b"Adobe" in red  # whose values are inverted
    assert (np.abs(pixels(red).astype(int) - [255, 0, 0]) < 8).all()


@pytest.mark.parametrize("kind", ["png", "gif", "webp", "tiff", "mpo"])
def test_of_several_pictures_the_first_is_taken(kind):
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    options = {"lossless": True} if kind == "webp" else {}
    content = encoded(first, kind, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 2
    assert (np.abs(pixels(content).astype(int) - [255, 0, 0]) < 3).all()
