"""Whatever somebody hands to a detector as an image: a file, a Pillow image or an array, as uint8 RGB."""

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TypeGuard

import numpy as np
import PIL.Image
import PIL.ImageOps

from draem_jax import images, storage
from draem_jax.errors import UserError, first_line

Image = str | bytes | os.PathLike[str] | PIL.Image.Image | np.ndarray  # What `open_picture` takes.

_EXPECTED = 'Expected an image: a path, a Pillow image, or uint8 [H, W, 3] (RGB), [H, W, 4] (RGBA) or [H, W] (grey)'


def is_several(value: object) -> TypeGuard[Iterable[object]]:
    """Whether a value is meant as several images, and not as one. A dict is neither."""
    if isinstance(value, str | bytes | os.PathLike | PIL.Image.Image | Mapping) or hasattr(value, '__array__'):
        return False
    return isinstance(value, Iterable)


def open_picture(image: object, bit_depth: int = 0) -> np.ndarray:
    """An image as the networks see it.

    Args:
        image: a path; a Pillow image of any mode but 'I' and 'F', which is turned upright as its EXIF orientation says;
            or an array, or what `np.asarray` makes one of, such as JAX's and PyTorch's: uint8 [H, W, 3] (RGB),
            [H, W, 4] (RGBA), [H, W] or [H, W, 1] (grey), or likewise bool, where True is white, and uint16 if
            `bit_depth` is not 0. As in files, an alpha channel is dropped.
        bit_depth: of uint16 values, as in `images.read_image`.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        UserError: the file cannot be read, or the value is no image.
    """
    if isinstance(image, str | bytes | os.PathLike):
        path = os.fsdecode(image)
        return images.read_image(path if storage.is_remote(path) else os.path.expanduser(path), bit_depth=bit_depth)
    if isinstance(image, PIL.Image.Image):
        return _from_pillow(image, bit_depth)
    if not hasattr(image, '__array__'):
        raise UserError(f'{_EXPECTED}; found {type(image).__name__} {reprlib.repr(image)}.')
    try:
        array = np.asarray(image)
    except Exception as error:  # Other libraries have reasons of their own, such as a tensor on a GPU.
        raise UserError(f'{_EXPECTED}; found {type(image).__name__}, no array: {first_line(error)}') from error
    return _from_array(array, bit_depth)


def _from_pillow(image: PIL.Image.Image, bit_depth: int) -> np.ndarray:
    if image.mode in ('I', 'F'):
        raise UserError(
            f"{_EXPECTED}; found a Pillow image of mode '{image.mode}', whose range is not known. Convert it to 'L' or "
            "'RGB', with values from 0 to 255."
        )
    try:
        upright = PIL.ImageOps.exif_transpose(image)
        if upright.mode.startswith('I;16'):
            # As in a file, 0 means 16 bits here: such an image has been read from one.
            return _from_array(np.asarray(upright).astype(np.uint16), bit_depth or 16)
        return _from_array(np.asarray(upright.convert('RGB')), 0)
    except UserError:
        raise
    except Exception as error:  # Pillow reads the file only now, and its errors are of many types.
        raise UserError(f"Cannot read the Pillow image of mode '{image.mode}': {first_line(error)}.") from error


def _from_array(array: np.ndarray, bit_depth: int) -> np.ndarray:
    found = f'found {array.dtype} {list(array.shape)}'
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.size == 0 or array.shape[2] not in (1, 3, 4):
        hint = ''
        if array.ndim in (1, 4):
            hint = ' Several images come as a list.'
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = ' Channels come last: image.transpose(1, 2, 0).'
        raise UserError(f'{_EXPECTED}; {found}.{hint}')
    array = np.broadcast_to(array, (*array.shape[:2], 3)) if array.shape[2] == 1 else array[..., :3]
    if array.dtype == np.bool_:
        array = np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype == np.uint16 and bit_depth:
        blue_first = np.ascontiguousarray(array[..., ::-1])
        return images.to_rgb(blue_first, bit_depth=bit_depth, path='an image of 16 bits')
    if array.dtype != np.uint8:
        hint = 'Convert it to uint8, from 0 to 255.'
        if np.issubdtype(array.dtype, np.floating):
            hint = 'If its values are in [0, 1], multiply by 255 and convert: np.rint(255 * image).astype(np.uint8).'
        elif array.dtype == np.uint16:
            hint = (
                'How many bits its values have is not known: divide by 257 if 16, by 16 if 12, and convert to uint8. A '
                'run with dataset.bit_depth would say it.'
            )
        raise UserError(f'{_EXPECTED}; {found}. {hint}')
    return np.ascontiguousarray(array)
