"""One reader for every image file and every use: bytes to uint8 RGB, resizing, writing.

OpenCV decodes; Pillow reads the size in the header beforehand. Whatever cannot be read is a `UserError` that names the
file and the reason.
"""

import contextlib
import io
import os
import pathlib
import warnings

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from draem_jax import storage
from draem_jax.errors import UserError

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
MAX_PIXELS = 2**28  # 16384 x 16384. A damaged or hostile header can ask for far more memory than there is.

# OpenCV logs the same failure several times over, and Pillow warns of metadata that nobody here reads. The one
# line that we raise says it better.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.(Jpeg|Png|Tiff)ImagePlugin')


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file ends in one of `EXTENSIONS`, in any case. The file is not opened."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def list_images(folder: str | os.PathLike[str], *, allow_none: bool = False) -> list[str]:
    """All image files in a folder and below it, however nested.

    Hidden files and folders (their names start with a dot, such as '._001.png') and files with other endings are
    skipped. Links are followed; a folder reached twice counts once.

    Args:
        folder: on this machine or in a bucket (see `draem_jax.storage`).
        allow_none: return an empty list, instead of raising, where there is no such folder or no image in it.

    Returns:
        Paths that start with `folder`, sorted by the rest with forward slashes: the same order on every machine.

    Raises:
        UserError: there is no such folder, no image in it, or a folder in it may not be read.
    """
    if not storage.is_folder(folder) and not allow_none:
        raise UserError(f"No folder '{folder}'. Is its path written correctly, and is it there on this machine?")
    paths: list[str] = []
    others: list[str] = []
    for parent, names in storage.walk(folder, onerror=_refuse_folder):
        for name in names:
            if not name.startswith('.'):
                (paths if is_image(name) else others).append(os.path.join(parent, name))
    if not paths and not allow_none:
        contents = f"{len(others)} other file(s), such as '{min(others)}'" if others else 'no files at all'
        raise UserError(f"No images ({' '.join(EXTENSIONS)}) in '{folder}' or below it. Found: {contents}.")
    return sorted(paths, key=lambda path: pathlib.Path(path).relative_to(folder).as_posix())


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The file as an RGB image, turned upright as its EXIF orientation says.

    Reads PNG (also 1-bit, palette, grey, 16-bit), JPEG (also grey, CMYK, progressive), BMP, TIFF (8 and 16 bit) and
    WebP, and takes the first of several pages or frames. An alpha channel is dropped. 16-bit values are divided by 257,
    not clipped.

    Returns:
        [H, W, 3] uint8, red first.

    Raises:
        UserError: the file is missing, empty, truncated, no image, or larger than `MAX_PIXELS`.
    """
    pixels = _decode(path)
    if pixels.dtype == np.uint16:
        pixels = _divide(pixels, 257)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_mask(path: str | os.PathLike[str], *, holds_ids: bool = False) -> np.ndarray:
    """The file as a mask: the largest of its colour channels, decoded as `read_image` does.

    Masks are written with 0 and 255, but also with 0 and 1, 0 and 100, or in 16 bits. The largest value becomes 255, so
    that "above one half" means the same for all.

    Args:
        path: of the file.
        holds_ids: the values number the defects, 1, 2, ...: each value above 0 becomes 255.

    Returns:
        [H, W] uint8, 0 on normal pixels and up to 255 on anomalous ones.

    Raises:
        UserError: as `read_image`.
    """
    mask = _decode(path).max(axis=-1)
    if holds_ids:
        return np.where(mask > 0, np.uint8(255), np.uint8(0))
    return np.rint(mask * (255 / max(1, mask.max()))).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int], antialias: bool = False) -> np.ndarray:
    """The image at another size, bilinear with half-pixel centres.

    Args:
        image: [H, W] or [H, W, C], uint8 or float32.
        size: (height, width) wanted.
        antialias: False samples four neighbours, also when shrinking, as the authors' loader does.
            True averages over the area that a new pixel covers, along each axis that shrinks.

    Returns:
        [height, width] or [height, width, C] of the same dtype; the input itself if it has that size.
    """
    height, width = size
    result = image
    if antialias:
        result = _resize(result, (min(height, image.shape[0]), min(width, image.shape[1])), cv2.INTER_AREA)
    return _resize(result, (height, width), cv2.INTER_LINEAR)


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes a PNG file, lossless.

    Args:
        path: where to; the folder must exist.
        image: [H, W, 3] uint8 RGB, [H, W] uint8 grey, or [H, W] uint16 grey.
    """
    is_rgb = image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3
    is_grey = image.dtype in (np.uint8, np.uint16) and image.ndim == 2
    if not is_rgb and not is_grey:
        raise ValueError(f'Expected uint8 [H, W, 3], uint8 [H, W] or uint16 [H, W], found {image.dtype} {image.shape}.')
    if is_rgb:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.png', image)
    pathlib.Path(path).write_bytes(data.tobytes())


def write_jpeg(path: str | os.PathLike[str], image: np.ndarray, quality: int = 90) -> None:
    """Writes a JPEG file: a fifth of a PNG's size, for pictures that are only looked at.

    Args:
        path: where to; the folder must exist.
        image: [H, W, 3] uint8 RGB.
        quality: 0 to 100.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f'Expected uint8 [H, W, 3], found {image.dtype} {image.shape}.')
    # Colour keeps its full resolution: heat maps have edges in colour, and hardly any in brightness.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    pathlib.Path(path).write_bytes(data.tobytes())


def _decode(path: str | os.PathLike[str]) -> np.ndarray:
    """The file as [H, W, 3] uint8 or uint16, blue first as OpenCV has it."""
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise UserError(f"Cannot read image '{path}': {error.strerror}.") from error
    if not data:
        raise UserError(f"Cannot read image '{path}': the file is empty.")
    if data.startswith(b'\x89PNG') and b'IEND\xaeB`\x82' not in data:
        # IEND ends every PNG. Where it is missing libpng would write to stderr, past OpenCV's log.
        raise UserError(f"Cannot read image '{path}': the file is truncated.")
    width, height = _claimed_size(data)
    if width * height > MAX_PIXELS:
        raise UserError(
            f"Cannot read image '{path}': {width} x {height} pixels are more than the {MAX_PIXELS} that are "
            'allowed. Scale it down or cut it into parts.'
        )
    pixels: np.ndarray | None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"Cannot read image '{path}': damaged, truncated, or not an 8 or 16 bit PNG, JPEG, BMP, TIFF or WebP."
        )
    return pixels


def _claimed_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header of a PNG, JPEG, BMP or TIFF file claims; (0, 0) where Pillow cannot read it.

    OpenCV then says what is wrong, or stops at its own limit of 2^30 pixels. `PIL.Image.open` would refuse large files
    without telling their size, so the classes of the formats are called directly. That of WebP refuses them too, so it
    is left to OpenCV's limit.
    """
    for image_file in (PngImageFile, JpegImageFile, BmpImageFile, TiffImageFile):
        with contextlib.suppress(Exception):  # Damaged headers raise many types.
            return image_file(io.BytesIO(data)).size
    return 0, 0


def _refuse_folder(error: OSError) -> None:
    """Raises what `os.walk` would otherwise pass over in silence."""
    if isinstance(error, FileNotFoundError):
        return
    raise UserError(f"Cannot read folder '{error.filename}': {error.strerror}.") from error


def _divide(values: np.ndarray, divisor: int) -> np.ndarray:
    """uint16 values over an odd divisor, rounded to the nearest uint8."""
    return ((values.astype(np.uint32) + divisor // 2) // divisor).astype(np.uint8)


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
    return resized.reshape((*size, *image.shape[2:]))  # OpenCV drops a single channel's axis.
