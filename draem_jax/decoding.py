"""The bytes of an image file as pixels, or one line that says why not.

OpenCV decodes. What it passes over in silence is looked for beforehand: headers that claim more pixels than there is
memory for, and data in which a decoder finds damage and goes on, grey or green from there on. Flipped bits that leave
the data well-formed can be noticed in PNG and deflated TIFF alone, which carry checksums.
"""

import contextlib
import io
import os
import warnings

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, ImageFileDirectory_v2, TiffImageFile

from draem_jax import storage
from draem_jax.errors import UserError, first_line

MAX_PIXELS = 2**28  # 16384 x 16384. A damaged or hostile header can ask for far more memory than there is.

# OpenCV logs the same failure several times over, and Pillow warns of metadata that nobody here reads. The one
# line that we raise says it better.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.(Jpeg|Png|Tiff)ImagePlugin')

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG'
_TIFF = (b'II*\x00', b'MM\x00*', b'II+\x00', b'MM\x00+')


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file; raises UserError where it cannot be read or is empty."""
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise UserError(f"Cannot read image '{path}': {error.strerror or first_line(error)}.") from error
    if not data:
        raise UserError(f"Cannot read image '{path}': the file is empty.")
    return data


def decode(
    data: bytes, path: str | os.PathLike[str], flags: int = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
) -> np.ndarray:
    """Decodes an image file.

    Args:
        data: its content.
        path: of the file, for error messages.
        flags: of `cv2.imdecode`.

    Returns:
        uint8 or uint16 [H, W, 3], blue first; with `cv2.IMREAD_UNCHANGED` as many channels as the file has.

    Raises:
        UserError: damaged, truncated, of another format or depth, or larger than `MAX_PIXELS`.
    """
    if data.startswith(_PNG) and b'IEND\xaeB`\x82' not in data:
        # IEND ends every PNG. Where it is missing libpng would write to stderr, past OpenCV's log.
        raise UserError(f"Cannot read image '{path}': the file is truncated.")
    width, height = _claimed_size(data)
    if width * height > MAX_PIXELS:
        raise UserError(
            f"Cannot read image '{path}': {width} x {height} pixels are more than the {MAX_PIXELS} that are "
            'allowed. Scale it down or cut it into parts.'
        )
    if damage := _find_damage(data):
        raise UserError(f"Cannot read image '{path}': its data are damaged ({damage}). Save it anew or remove it.")
    pixels: np.ndarray | None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"Cannot read image '{path}': damaged, truncated, or not an 8 or 16 bit PNG, JPEG, BMP, TIFF or WebP."
        )
    return pixels


def is_lossy(data: bytes) -> bool:
    """Whether a file is a JPEG or a lossy WebP, which blur the steps between two values."""
    return data.startswith(_JPEG) or (data.startswith(b'RIFF') and data[8:16] == b'WEBPVP8 ')


def _claimed_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header of a PNG, JPEG, BMP or TIFF file claims; (0, 0) where Pillow cannot read it.

    OpenCV then says what is wrong, or stops at its own limit of 2^30 pixels. `PIL.Image.open` would refuse large files
    without telling their size, so the classes of the formats are called directly. That of TIFF does not know all kinds
    that OpenCV reads, so the two tags are looked up. That of WebP refuses large files too, but no side of a WebP can be
    longer than 16383 pixels.
    """
    with contextlib.suppress(Exception):  # Damaged headers raise many types.
        if data.startswith(_TIFF):
            is_big = 43 in data[2:4]
            tags = ImageFileDirectory_v2(data[: 16 if is_big else 8])
            file = io.BytesIO(data)
            file.seek(tags.next)
            tags.load(file)
            return tags[IMAGEWIDTH], tags[IMAGELENGTH]
    for image_file in (PngImageFile, JpegImageFile, BmpImageFile):
        with contextlib.suppress(Exception):
            return image_file(io.BytesIO(data)).size
    return 0, 0


def _find_damage(data: bytes) -> str | None:
    """What a decoder says of data that OpenCV would fill up in silence, or None.

    libjpeg only warns of most damage. An eighth of the width and height is enough to have all data looked at, in a
    third of the time. Of TIFF files Pillow reads fewer kinds than OpenCV, so only what it finds in their data counts.
    """
    if data.startswith(_JPEG):
        return _find_jpeg_damage(data)
    if data.startswith(_TIFF):
        with contextlib.suppress(Exception):
            picture = TiffImageFile(io.BytesIO(data))
            try:
                picture.load()
            except OSError as error:
                return first_line(error)
    return None


def _find_jpeg_damage(data: bytes) -> str | None:
    import simplejpeg  # Where there are no JPEG files, nobody needs it.

    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        colours = 'CMYK' if colours in ('CMYK', 'YCCK') else 'GRAY'
        simplejpeg.decode_jpeg(data, colours, fastdct=True, fastupsample=True, min_height=1, min_width=1)
    except ValueError as error:
        return first_line(error)
    return None
