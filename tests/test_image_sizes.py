"""Pictures of any shape and size become one square, large ones without filling memory."""

import io
from threading import Thread

import numpy as np
import pytest
from picture_files import encoded, noise, pixels
from PIL import Image

from onecycle.datasets import decode


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([8, 8, 8], 32),
        ([31], 32),
        ([256], 128),
        ([47], 32),
        ([48], 48),
        ([63, 65], 64),
        ([63, 64], 48),
        ([20, 70, 4000], 64),
        ([96] * 5 + [500] * 4, 96),
        ([127, 128, 128], 128),
    ],
)
def test_the_size_is_the_largest_not_above_the_median(sides, expected):
    assert decode.common_size(sides) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((16, 16), True),
        ((128, 128), True),
        ((15, 15), False),
        ((129, 129), False),
        ((32, 33), False),
    ],
)
def test_squares_from_16_to_128_are_kept(shape, expected):
    assert decode.fit(shape) == expected
    if expected:
        image = noise(shape)
        assert np.array_equal(decode.look(encoded(image)).pixels, np.asarray(image))


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (48, 16), (128, 64)])
def test_the_centre_is_what_remains_of_the_whole_picture_scaled(size):
    image = noise(size)
    scale = min(size) / 32
    width, height = (round(side / scale) for side in size)
    whole = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - 32) // 2, (height - 32) // 2
    expected = whole.crop((left, top, left + 32, top + 32))
    assert np.array_equal(pixels(encoded(image), 32), np.asarray(expected))


@pytest.mark.parametrize("size", [(2000, 3), (3, 2000), (1, 500), (1, 1), (401, 399)])
def test_odd_shapes_keep_their_centre(size):
    image = Image.new("RGB", size, "blue")
    width, height = size
    centre = ((width - 1) // 2, (height - 1) // 2, width // 2 + 1, height // 2 + 1)
    image.paste("red", centre)
    result = pixels(encoded(image), 32).astype(int)
    assert result.shape == (32, 32, 3)
    assert np.abs(result - result[::-1, ::-1]).max() <= 2  # nothing is shifted
    if min(size) < 4:
        assert result[15:17, 15:17, 0].min() > 200


def smooth(size):
    return noise((size[0] // 20, size[1] // 20)).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_reducing_first_can_not_be_told_from_the_filter_alone(kind):
    content = encoded(smooth((805, 603)), kind)
    with Image.open(io.BytesIO(content)) as image:
        box = (101, 0, 704, 603)
        fair = image.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS, box)
    difference = np.abs(pixels(content, 32).astype(int) - np.asarray(fair))
    assert difference.mean() < 1 and difference.max() <= 4
    assert np.abs(np.diff(np.asarray(fair).astype(int), axis=0)).mean() > 20


def test_a_large_jpeg_is_reduced_while_it_is_decoded(monkeypatch):
    sizes = []
    real = decode._rgb
    monkeypatch.setattr(decode, "_rgb", lambda image: sizes.append(image.size) or real(image))
    pixels(encoded(smooth((1600, 1200)), "jpeg"), 32)
    assert sizes == [(200, 150)]  # three times 32, or more


def test_a_jpeg_that_ends_too_early_is_refused_reduced_or_not():
    content = encoded(noise((400, 300)), "jpeg")
    for size in (16, 128):
        for length in (len(content) // 3, len(content) - 100):
            assert "truncated" in decode.look(content[:length], size).pixels


def test_large_pictures_wait_for_each_other():
    room = decode._Room(10)
    order = []

    def second():
        with room.take(6):
            order.append("second")

    thread = Thread(target=second)
    with room.take(5):
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"] and not thread.is_alive()
    with room.take(10):
        pass
