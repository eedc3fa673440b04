"""One image file to pixels, whatever kind of picture it is.

- Its EXIF orientation is applied. Where that is damaged, the picture stays as it is stored.
- Grey, palette, CMYK and YCbCr become RGB as Pillow converts them; what is transparent, by an alpha
  channel, a palette or a colour, is put on white.
- 16-bit grey becomes 8 bits by value / 257, rounded; of 16-bit colour Pillow reads the high byte.
  32-bit integers and floats (Pillow's modes I and F) have no known range and are refused, and so
  is grey of 12 bits, or of 16 with white at zero, which Pillow gives as if it were neither.
- Of an animation or several pages the first picture is taken.
- More than 50 million pixels are refused, in a TIFF's tile too, and files that Pillow finds
  truncated or damaged (it can't see every damage: only PNG and packed TIFF hold checksums).
- Images that are all square and of one size from 16 to 128 pixels are kept as they are. Otherwise
  each is scaled to a shorter side of S pixels, up or down, and its centre of S x S is taken. S is
  the image size asked for, else the largest of 32, 48, 64, 96 and 128 that is not above the
  median of the shorter sides, at least 32.
- The filter is Pillow's Lanczos, the sharpest that doesn't alias, for shrinking as for enlarging.
  An image of more than three times the size is first reduced by averaging whole blocks
  (`reducing_gap`; a JPEG while it is decoded): faster, and about one grey level of 256 away.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from statistics import median
from threading import Condition
from typing import Any

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from onecycle.datasets.source import Pixels
from onecycle.errors import DataError, one_line

PIXEL_LIMIT = 50_000_000  # of one image: more is taken for a decompression bomb
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # none that runs a program
NO_RANGE = ("I", "F")  # modes of which nobody knows what is black and what is white
SMALLEST, LARGEST = 16, 128  # pixels of a side that can be trained on
SIZES = (32, 48, 64, 96, 128)  # of which one is chosen for images of different sizes
GREY_STEP = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey of 2 and 4 bits by
WHITE_IS_ZERO = 0
GAP = 3  # how many times larger than needed an image stays when it is reduced by whole blocks

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what makes a picture upright, by its EXIF orientation


@dataclass(frozen=True)
class Found:
    """An image file: its size by its header, if that can be read, and its pixels or why not."""

    size: tuple[int, int] | None
    pixels: Pixels | str


def look(content: bytes, size: int | None = None, *, header_only: bool = False) -> Found:
    """The file `content` as pixels (S, S, 3) uint8, where S is `size`, or why it can't be used.

    Without `size` an image that is `fit` comes as it is, and another one at any size. With
    `header_only` no pixels are read.
    """
    shape = None
    try:
        image = _opened(content)
        shape = image.size
        if header_only:
            return Found(shape, "")
        with nullcontext() if fit(shape) else _room.take(shape[0] * shape[1]):
            return Found(shape, _pixels(image, size or (shape[0] if fit(shape) else SMALLEST)))
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        return Found(shape, _reason(error))


def square(image: Image.Image, size: int) -> Pixels:
    """An open `image` as `look` would give its file, (size, size, 3) uint8; it stays open.

    Only a JPEG of more than three times the size may differ by some grey levels: `look` reduces it
    while it decodes. Raises DataError if it can't be used.
    """
    try:
        clear = _clear(_usable(image))
        ours = image.copy()
        ours.format = image.format  # a copy has none, and what 16-bit grey means depends on it
        if clear is not None:
            ours.info["transparency"] = clear
        return _pixels(ours, size)
    except Exception as error:  # Pillow's readers raise nearly anything on damaged bytes
        raise DataError(f"an image that can't be used: {_reason(error)}") from error


def fit(shape: tuple[int, int]) -> bool:
    """Whether images of this width and height can be trained on as they are."""
    return shape[0] == shape[1] and SMALLEST <= shape[0] <= LARGEST


def common_size(sides: Iterable[int]) -> int:
    """The size for images whose shorter sides have `sides` pixels; at least one."""
    middle = median(sides)
    return max((size for size in SIZES if size <= middle), default=SIZES[0])


class _Room:
    """Room for so many pixels: threads that decode large images wait for each other."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


_room = _Room(PIXEL_LIMIT)  # one image always has it; about 0.5 GB
# Pieces of such a size go back to the system when they are freed; of Pillow's usual ones of 16 MB
# each thread keeps hundreds of MB. (PILLOW_BLOCK_SIZE would do the same.)
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]


def _opened(content: bytes) -> Image.Image:
    """The image, of which only the header is read yet; any Exception if it can't be used."""
    if not content:
        raise ValueError("empty file")
    image = _usable(Image.open(io.BytesIO(content), formats=FORMATS))
    if (clear := _clear(image)) is not None:
        image.info["transparency"] = clear
    return image


def _usable(image: Image.Image) -> Image.Image:
    """`image`, if its header is that of one that can be used; else ValueError."""
    if not min(image.size):
        raise ValueError("no pixels")
    if image.width * image.height > PIXEL_LIMIT:
        raise ValueError(f"{image.width}x{image.height}, over the limit of {PIXEL_LIMIT:,} pixels")
    if image.mode in NO_RANGE and not _is_grey16(image):
        raise ValueError(f"pixels of mode {image.mode} have no known range")
    _check_tags(image, getattr(image, "tag_v2", {}))
    return image


def _check_tags(image: Image.Image, tags: Mapping[int, Any]) -> None:
    """ValueError for what Pillow would misread of a TIFF with `tags`, or fill the memory with."""
    tile = tags.get(TiffImagePlugin.TILEWIDTH, 1) * tags.get(TiffImagePlugin.TILELENGTH, 1)
    if tile > PIXEL_LIMIT:
        raise ValueError(f"a tile of {tile:,} pixels, over the limit of {PIXEL_LIMIT:,}")
    if tags and _is_grey16(image):
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
        if bits != 16 or tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            raise ValueError(f"{bits}-bit grey in a TIFF of a kind that is misread: save it as PNG")


def _clear(image: Image.Image) -> Any:
    """The transparent colour of a PNG not read yet, in 8 bits as its pixels will be; else None.

    Pillow leaves it in the file's depth.
    """
    clear = image.info.get("transparency")
    if image.format != "PNG" or clear is None or not getattr(image, "tile", None):
        return None
    depth = image.tile[0][3]  # type: ignore[attr-defined]
    if depth in GREY_STEP:
        return clear * GREY_STEP[depth]
    return tuple(value >> 8 for value in clear) if depth == "RGB;16B" else None


def _pixels(image: Image.Image, size: int) -> Pixels:
    """The upright centre of `image`, (size, size, 3) uint8; any Exception if it is damaged."""
    square = _rgb(image) if image.size == (size, size) else _scaled(image, size)
    turn = _turn(image)
    upright = square if turn is None else square.transpose(turn)
    image.close()
    return np.frombuffer(upright.tobytes(), np.uint8).reshape(size, size, 3)


def _scaled(image: Image.Image, size: int) -> Image.Image:
    """The centre of `image`, as large a square as it holds, at `size`."""
    width, height = map(float, image.size)
    enough = GAP * size / min(image.size)
    reduced = image.draft(None, (int(width * enough), int(height * enough)))
    if reduced:
        width, height = reduced[1][2:]
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return _rgb(image).resize((size, size), Image.Resampling.LANCZOS, box, reducing_gap=GAP)


def _rgb(image: Image.Image) -> Image.Image:
    """`image` decoded, as 8-bit RGB on white."""
    if _is_grey16(image):
        return _eight_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(clear, mask=clear)
    return white


def _is_grey16(image: Image.Image) -> bool:
    # Pillow brings PGM of more than 8 bits to 0-65535, in the mode of 32-bit integers.
    return image.mode.startswith("I;16") or (image.format, image.mode) == ("PPM", "I")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey."""
    values = np.asarray(image)
    grey = (values // 257).astype(np.uint8)
    grey += values % 257 > 128
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright by its EXIF data; None if nothing does, or nobody knows."""
    try:
        return TURNS.get(image.getexif()[ExifTags.Base.Orientation])
    except Exception:  # none there, or damage, which raises nearly anything
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return one_line(error)
