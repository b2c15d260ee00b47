"""One reader for every image file and every use: bytes to uint8 RGB, resizing, writing.

`draem_jax.decoding` looks for damage and decodes. Whatever cannot be read is a `UserError` that names the file and the
reason.
"""

import io
import json
import os
import pathlib
import sys
from collections.abc import Collection

import cv2
import numpy as np
import PIL.Image

from draem_jax import decoding, storage
from draem_jax.errors import UserError, first_line

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
MAX_PIXELS = decoding.MAX_PIXELS
# Pictures in other formats are passed over, which their owner should be told.
_OTHER_EXTENSIONS = (
    '.arw .avif .cr2 .dcm .dng .exr .gif .heic .heif .ico .jfif .jp2 .jpe .jxl .mpo .nef .pbm .pgm .pnm .ppm .psd .raw '
    '.svg .tga'
)
_FEW_VALUES = 16  # A mask of at most that many values is not a blurred one.
_MADE_BY_A_RUN = ('checkpoints', 'damaged', 'evaluation', 'predictions', 'profile')
_MADE_BY_PREDICT = ('overlays', 'maps')
_MARKS = ('config.json', 'predictions.jsonl', 'results.json', 'scores.csv')  # by which what we wrote is known

_told: set[str] = set()  # what `tell_once` has told of


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file ends in one of `EXTENSIONS`, in any case. The file is not opened."""
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def is_other_image(path: str | os.PathLike[str]) -> bool:
    """Whether the name of a file ends as that of a picture in a format that is not read here."""
    return os.path.splitext(path)[1].lower() in _OTHER_EXTENSIONS.split()


def list_images(folder: str | os.PathLike[str], *, allow_none: bool = False) -> list[str]:
    """All image files in a folder and below it, however nested.

    Hidden files and folders (their names start with a dot, such as '._001.png') and files with other endings are
    skipped. Links are followed; a folder reached twice counts once. What train.py, evaluate.py or predict.py wrote is
    never read as input: their folders below this one are passed over, and stderr says so once.

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
    files = list_files(folder)
    paths = [path for path in files if is_image(path)]
    if not paths and not allow_none:
        others = files
        contents = f"{len(others)} other file(s), such as '{min(others)}'" if others else 'no files at all'
        raise UserError(f"No images ({' '.join(EXTENSIONS)}) in '{folder}' or below it. Found: {contents}.")
    return paths


def list_files(folder: str | os.PathLike[str]) -> list[str]:
    """As `list_images`, but files with any ending; an empty list where there is no such folder."""
    top = str(folder)
    paths = []
    for parent, folders, names in storage.walk(folder, onerror=_refuse_folder):
        own = _folders_of_ours(parent, names)
        if own is not None and parent != top:
            folders.clear()
            text = f"Note: passed over '{parent}': it holds what draem_jax wrote, not images to look at."
            tell_once(parent, text)
            continue
        # Beside what we wrote into the folder itself there may be images of the user's.
        folders[:] = [name for name in folders if name not in (own or ())]
        paths += [os.path.join(parent, name) for name in names if not name.startswith('.')]
    return sorted(paths, key=lambda path: pathlib.Path(path).relative_to(folder).as_posix())


def is_own_output(path: str, top: str) -> bool:
    """Whether a script of ours wrote what lies at a path below `top`, so that `list_images(top)` passes it over."""
    folders = pathlib.Path(path).relative_to(top).parts
    for depth, name in enumerate(folders):
        folder = os.path.join(top, *folders[:depth])
        own = _folders_of_ours(folder, [mark for mark in _MARKS if os.path.isfile(os.path.join(folder, mark))])
        if own is not None and (depth or name in own):
            return True
    return False


def _folders_of_ours(parent: str, names: Collection[str]) -> tuple[str, ...] | None:
    """The names of the folders that a script of ours makes in a folder, or None where none has written to it."""
    if 'config.json' in names and _is_config_of_run(os.path.join(parent, 'config.json')):
        return _MADE_BY_A_RUN
    if 'predictions.jsonl' in names:
        return _MADE_BY_PREDICT
    if 'results.json' in names and 'scores.csv' in names:  # an evaluation
        return ('report',)
    return None


def _is_config_of_run(path: str) -> bool:
    """Whether a file is the config.json of a run; other programs name their files so too."""
    try:
        config = json.loads(storage.read_bytes(path))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {'schema', 'dataset', 'synthesis', 'model', 'training'} <= set(config)


def tell_once(about: str, text: str) -> None:
    """Prints a line on stderr, unless there was one about the same before."""
    if about not in _told:
        _told.add(about)
        print(text, file=sys.stderr)


def read_image(path: str | os.PathLike[str], *, bit_depth: int = 0) -> np.ndarray:
    """The file as an RGB image, turned upright as its EXIF orientation says.

    Reads PNG (also 1-bit, palette, grey, 16-bit), JPEG (also grey, CMYK, progressive), BMP, TIFF (8 and 16 bit) and
    WebP, and takes the first of several pages or frames. An alpha channel is dropped. 16-bit values are divided by 257,
    not clipped.

    Args:
        path: of the file.
        bit_depth: how many bits the values of 16-bit files have, 9 to 16; cameras of 10, 12 or 14 bits write such
            files. 2^bit_depth - 1 becomes 255. 0 is 16. Files of 8 bits are read as they are.

    Returns:
        [H, W, 3] uint8, red first.

    Raises:
        UserError: the file is missing, empty, truncated, damaged, no image, larger than `MAX_PIXELS`, or holds a value
            above 2^bit_depth - 1.
    """
    return to_rgb(decode(path), bit_depth=bit_depth, path=path)


def decode(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a file as they are, which `to_rgb` makes an image of: uint8 or uint16 [H, W, 3], blue first."""
    return decoding.decode(decoding.read_file(path), path)


def to_rgb(pixels: np.ndarray, *, bit_depth: int = 0, path: str | os.PathLike[str] = '') -> np.ndarray:
    """What `decode` returned as `read_image` gives it."""
    if pixels.dtype == np.uint16:
        largest = 2 ** (bit_depth or 16) - 1
        if pixels.max() > largest:
            raise UserError(
                f"'{path}' holds the value {pixels.max()}, more than {bit_depth} bits have ({largest}). Is "
                f'--config.dataset.bit_depth={bit_depth} right for this file?'
            )
        pixels = ((pixels.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_mask(
    path: str | os.PathLike[str], *, holds_ids: bool = False, ids: Collection[int] = (), inverted: bool = False
) -> np.ndarray:
    """The file as a mask.

    Masks are written with 0 and 255, with 0 and 1, in 16 bits, in colours, with a number for each class of defects, or
    with grey rims where they were resized. The largest of a pixel's colour channels is its value. Where there are few
    values, each above 0 marks a defect, unless those between the least and the largest lie on rims only. With rims, or
    many values, the largest becomes 255, so that "above one half" means the same for all. What a mask's alpha channel
    makes transparent is normal; where the colours show nothing, the alpha channel is the mask.

    Args:
        path: of the file.
        holds_ids: the values number the defects, 1, 2, ...: each value above 0 becomes 255.
        ids: only these values (in a palette image: indices) mark a defect.
        inverted: 0 marks the defects.

    Returns:
        [H, W] uint8, 0 on normal pixels and up to 255 on anomalous ones.

    Raises:
        UserError: as `read_image`; or `ids` are asked for, and the file holds colours.
    """
    return examine_mask(path, holds_ids=holds_ids, ids=ids, inverted=inverted)[0]


def examine_mask(
    path: str | os.PathLike[str], *, holds_ids: bool = False, ids: Collection[int] = (), inverted: bool = False
) -> tuple[np.ndarray, dict[str, str]]:
    """What `read_mask` returns, and {kind: what is remarkable about it, to be read after the file's name}."""
    data = decoding.read_file(path)
    remarks: dict[str, str] = {}
    if ids:
        mask = np.where(np.isin(_read_ids(data, path), list(ids)), np.uint8(255), np.uint8(0))
    else:
        pixels = decoding.decode(data, path)
        values = pixels.max(axis=-1)
        alpha = _read_alpha(data, path)
        if alpha is not None and alpha.shape == values.shape and alpha.min() < 128:
            remarks['mask with alpha'] = 'has an alpha channel: what is transparent counts as normal.'
            shows_nothing = values.min() == values.max()
            values = np.where(alpha < 128, values.dtype.type(0), alpha if shows_nothing else values)
        marks = np.flatnonzero(np.bincount(values.ravel()))
        marks = marks[marks > 0]
        is_binary = len(marks) <= 1
        has_classes = not is_binary and not decoding.is_lossy(data) and _has_classes(values, marks)
        if has_classes and not holds_ids:
            has_numbers = (pixels == pixels[..., :1]).all()
            option = f'mask_ids={marks[0]}' if has_numbers else 'mask_ids'
            remarks['mask of several values'] = (
                f'has the values {", ".join(map(str, marks))}: each of them counts as defective. If only some should, '
                f"because the others mean 'ignore' or no defect, the option {option} of 'folder' says which"
                f'{"" if has_numbers else " once they are numbers, not colours"}.'
            )
        if holds_ids or has_classes:
            mask = np.where(values > 0, np.uint8(255), np.uint8(0))
        else:
            mask = np.rint(values * (255 / max(1, values.max()))).astype(np.uint8)
    if inverted:
        mask = 255 - mask
    share = (mask > 127.5).mean()
    if share > 0.5:
        remarks['mask mostly defective'] = (
            f'marks {100 * share:.3g} % of its image as defective. If 0 marks the defects, the option '
            f"mask_inverted=true of 'folder' says so."
        )
    return mask, remarks


def _has_classes(values: np.ndarray, marks: np.ndarray) -> bool:
    """Whether the values of a mask stand for something by themselves, and not for the rims of what 255 marks.

    A value belongs to rims where most of its pixels have a lower and a higher one beside them.

    Args:
        values: uint8 or uint16 [H, W].
        marks: the values above 0 that occur, ascending.
    """
    if len(marks) > _FEW_VALUES:
        return False
    neighbours = np.ones((3, 3), np.uint8)
    is_rim = (cv2.erode(values, neighbours) < values) & (cv2.dilate(values, neighbours) > values)
    return any(is_rim[values == mark].mean() < 0.5 for mark in marks[:-1])


def _read_alpha(data: bytes, path: str | os.PathLike[str]) -> np.ndarray | None:
    """The alpha channel of a file as uint8 [H, W], or None where it has none."""
    try:
        header = PIL.Image.open(io.BytesIO(data))
        has_alpha = header.has_transparency_data
    except Exception:  # Damaged headers raise many types, and OpenCV reads files that Pillow does not know.
        return None
    if not has_alpha:
        return None
    pixels = decoding.decode(data, path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    return pixels[..., 3] if pixels.dtype == np.uint8 else (pixels[..., 3] >> 8).astype(np.uint8)


def _read_ids(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers in a mask, [H, W]: its values, or in a palette image its indices."""
    decoding.decode(data, path)  # It says what is wrong with a damaged file.
    try:
        ids = np.asarray(PIL.Image.open(io.BytesIO(data)))
    except Exception as error:  # Pillow has no common one.
        raise UserError(f"Cannot read the ids in mask '{path}': {first_line(error)}.") from error
    if ids.ndim == 3 and (ids[..., :3] == ids[..., :1]).all():
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise UserError(f"Mask '{path}' holds colours, and mask_ids takes numbers: one channel or a palette.")
    return ids


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


def _refuse_folder(error: OSError) -> None:
    """Raises what `os.walk` would otherwise pass over in silence."""
    if isinstance(error, FileNotFoundError):
        return
    raise UserError(f"Cannot read folder '{error.filename}': {error.strerror}.") from error


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
    return resized.reshape((*size, *image.shape[2:]))  # OpenCV drops a single channel's axis.
