"""Where decoded images are kept between two looks at them: in memory, on disk, or not at all.

Each gives a bank (`data.bank`) of the same pixels, so a training sees the same examples whichever is chosen.

    memory    one uint8 array: H x W x 3 bytes an image
    disk      the same array as a memory-mapped file, made once; for more images than fit in memory
    none      nothing is kept: every example decodes its files (`bank.FileImages`)
"""

import contextlib
import hashlib
import json
import os
import pathlib

import numpy as np

from draem_jax.errors import UserError

CACHES = ('memory', 'disk', 'none')


def default_folder():
    """Where `disk` keeps its files unless told otherwise: `draem_jax/images` in the user's cache folder."""
    cache = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(cache, 'draem_jax', 'images')


def in_memory(decoded, shape):
    """An array of uint8 [H, W, 3] images from an iterator; `shape` is [N, H, W, 3]."""
    bank = np.empty(shape, np.uint8)
    for target, image in zip(bank, decoded, strict=True):
        target[...] = image
    return bank


def on_disk(decode_all, shape, *, identity, folder):
    """As `in_memory`, in a file that later calls with the same identity find again.

    Args:
        decode_all: function without arguments that returns the iterator of images; not called where the file exists.
        shape: [N, H, W, 3].
        identity: plain values that tell this bank from every other: the files, their times, the size.
        folder: where the file lies; '' for `default_folder()`. It may be deleted whenever no training uses it.

    Returns:
        Read-only uint8 array [N, H, W, 3], mapped from the file.

    Raises:
        UserError: the file cannot be written.
    """
    name = hashlib.sha256(json.dumps([identity, list(shape)]).encode()).hexdigest()[:32]
    path = pathlib.Path(folder or default_folder(), f'{name}.npy')
    if not path.exists():
        partial = path.with_name(f'.{name}.{os.getpid()}.partial')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, 'wb') as file:
                header = {'descr': '|u1', 'fortran_order': False, 'shape': tuple(shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for image in decode_all():
                    file.write(np.ascontiguousarray(image))
            os.replace(partial, path)
        except OSError as error:
            raise UserError(
                f"Cannot write '{path}': {error.strerror}. It takes {gigabytes(shape):.1f} GB; name a folder with "
                '--config.dataset.cache_folder, or pass --config.dataset.cache=none.'
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    return np.load(path, mmap_mode='r')


def check_memory(shapes, limit_gb):
    """Raises UserError where banks of these shapes, kept in memory, exceed the limit in GB (10^9 bytes)."""
    needed = sum(gigabytes(shape) for shape in shapes)
    if needed > limit_gb:
        raise UserError(
            f'Images and textures take {needed:.1f} GB of memory at this size, more than '
            f'--config.dataset.cache_limit_gb={limit_gb:g}. Raise it, or pass --config.dataset.cache=disk, '
            'a smaller --config.dataset.image_size, or a --config.dataset.texture_count.'
        )


def gigabytes(shape):
    """The size of a uint8 array of this shape, in 10^9 bytes."""
    return float(np.prod(shape, dtype=np.float64)) / 1e9
