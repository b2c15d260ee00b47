"""Banks: many images of one size, of which a training takes one at a time.

The config's `dataset.cache` chooses where a bank keeps decoded images between two looks at them; the pixels are the
same:

    memory    one uint8 array: H x W x 3 bytes an image
    disk      the same array as a memory-mapped file, made once; for more images than fit in memory
    none      nothing is kept: every example decodes its files (`FileImages`)
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from draem_jax import storage
from draem_jax.errors import UserError

CACHES = ('memory', 'disk', 'none')

_PARTIAL = '.partial'  # how the name of a file ends that is not written yet
_PARTIAL_NAME = re.compile(rf'\.[0-9a-f]{{32}}\.[0-9a-f-]+\{_PARTIAL}')
_ABANDONED_SECONDS = 24 * 3600

# A source of textures may be one of these words instead of a bank.
COLOUR = 'colour'  # a plain random colour for each example, which is not augmented
SELF = 'self'  # a patch of another normal image


class Bank(Protocol):
    """What serves as a bank: a NumPy array does, and so do the classes below."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, C]."""

    @property
    def dtype(self) -> np.dtype:
        """The type of the pixels."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: int, /) -> np.ndarray:
        """One image, [H, W, C]."""


def make_bank(
    decode_all: Callable[[], Iterable[np.ndarray]],
    shape: Sequence[int],
    *,
    cache: str,
    cache_folder: str,
    identify: Callable[[], list],
    on_demand: Bank | None = None,
) -> Bank:
    """A bank that keeps its images as the config's `dataset.cache` says.

    Args:
        decode_all: returns the images, uint8 [H, W, 3], in order; not called for 'none' or if they are on disk already.
        shape: [N, H, W, 3].
        cache: one of `CACHES`.
        cache_folder: as `folder` of `on_disk`.
        identify: returns the `identity` of `on_disk`; called for 'disk' only, since it looks at every file.
        on_demand: the bank for 'none'. Callers that have none refuse 'none' themselves.

    Raises:
        UserError: a file cannot be decoded, or the file of 'disk' cannot be written.
        ValueError: the cache is 'none', and there is no `on_demand`.
    """
    if cache == 'memory':
        return in_memory(decode_all(), shape)
    if cache == 'disk':
        return on_disk(decode_all, shape, identity=identify(), folder=cache_folder)
    if on_demand is None:
        raise ValueError(f"These images have to be kept: expected cache 'memory' or 'disk', not '{cache}'.")
    return on_demand


def default_cache_folder() -> str:
    """Where `disk` keeps its files unless told otherwise: `draem_jax/images` in the user's cache folder."""
    return os.path.join(storage.cache_folder(), 'images')


def in_memory(decoded: Iterable[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    """An array of uint8 [H, W, 3] images from an iterator; `shape` is [N, H, W, 3]."""
    bank = np.empty(shape, np.uint8)
    for target, image in zip(bank, decoded, strict=True):
        target[...] = image
    return bank


def on_disk(
    decode_all: Callable[[], Iterable[np.ndarray]], shape: Sequence[int], *, identity: list, folder: str
) -> np.ndarray:
    """As `in_memory`, in a file that later calls with the same identity find again; one that is damaged is made anew.

    Args:
        decode_all: returns the images; not called where the file is there.
        shape: [N, H, W, 3].
        identity: plain values that tell this bank from every other: the files, their times, the size.
        folder: where the file lies; '' for `default_cache_folder()`. It may be deleted whenever no training uses it.

    Returns:
        Read-only uint8 array [N, H, W, 3], mapped from the file.

    Raises:
        UserError: the file cannot be written or read.
    """
    name = hashlib.sha256(json.dumps([identity, list(shape)]).encode()).hexdigest()[:32]
    path = pathlib.Path(folder or default_cache_folder(), f'{name}.npy')
    bank = _mapped(path, shape)
    if bank is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path.parent)
            _write(path, decode_all(), shape)
        except OSError as error:
            raise UserError(
                f"Cannot write '{path}': {error.strerror}. It takes {gigabytes(shape):.1f} GB; name a folder with "
                '--config.dataset.cache_folder, or pass --config.dataset.cache=none.'
            ) from error
        bank = _mapped(path, shape)
    if bank is None:
        raise UserError(f"'{path}' does not hold the images that were just written to it. Delete it, and try again.")
    return bank


def _mapped(path: pathlib.Path, shape: Sequence[int]) -> np.ndarray | None:
    """The array in a file of `on_disk`, or None where there is no file, or one that is cut short or of another kind.

    Raises:
        UserError: the file may not be read.
    """
    try:
        bank = np.lib.format.open_memmap(path, mode='r')
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror}. Delete it, and it is made again.") from error
    except ValueError:  # What NumPy says of a file that is too short for its header, or has none.
        return None
    return bank if bank.shape == tuple(shape) and bank.dtype == np.uint8 else None


def _write(path: pathlib.Path, decoded: Iterable[np.ndarray], shape: Sequence[int]) -> None:
    """Writes images to a file that appears whole or not at all."""
    # Two containers may have the same process ids and one folder.
    partial = path.with_name(f'.{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}')
    try:
        with open(partial, 'xb') as file:
            header = {'descr': '|u1', 'fortran_order': False, 'shape': tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for image in decoded:
                file.write(np.ascontiguousarray(image).data)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _remove_abandoned(folder: pathlib.Path) -> None:
    """Removes what processes that were killed have begun to write: a living one writes more often than once a day."""
    for partial in folder.glob(f'.*{_PARTIAL}'):
        with contextlib.suppress(OSError):
            if _PARTIAL_NAME.fullmatch(partial.name) and time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                partial.unlink()


def check_memory(shapes: Iterable[Sequence[int]], limit_gb: float) -> None:
    """Raises UserError where banks of these shapes, kept in memory, exceed the limit in GB (10^9 bytes)."""
    needed = sum(gigabytes(shape) for shape in shapes)
    if needed > limit_gb:
        raise UserError(
            f'Images and textures take {needed:.1f} GB of memory at this size, more than '
            f'--config.dataset.cache_limit_gb={limit_gb:g}. Raise it, or pass --config.dataset.cache=disk, '
            'a smaller --config.dataset.image_size, or a --config.dataset.texture_count.'
        )


def gigabytes(shape: Sequence[int]) -> float:
    """The size of a uint8 array of this shape, in 10^9 bytes."""
    return float(np.prod(shape, dtype=np.float64)) / 1e9


class Selection:
    """Some images of a bank, as a bank.

    Args:
        bank: the bank.
        indices: int [K], which of its images, in this order.
    """

    def __init__(self, bank: Bank, indices: np.ndarray) -> None:
        self._bank, self.indices = bank, indices
        self.shape, self.dtype = (len(indices), *bank.shape[1:]), bank.dtype

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self._bank[self.indices[index]]

    @property
    def failure(self) -> Exception | None:
        """See `FileImages.failure`."""
        return failure(self._bank)


class Joined:
    """The images of several banks of one size, one after the other, as a bank."""

    def __init__(self, banks: Sequence[Bank]) -> None:
        self._banks = banks
        self._starts = np.cumsum([0, *map(len, banks)])
        self.shape, self.dtype = (int(self._starts[-1]), *banks[0].shape[1:]), banks[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int, /) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._starts, index, side='right')) - 1
        return self._banks[which][index - self._starts[which]]

    @property
    def failure(self) -> Exception | None:
        """See `FileImages.failure`."""
        return next(filter(None, map(failure, self._banks)), None)


class FileImages:
    """Images that are decoded anew each time they are asked for, as a bank.

    Args:
        files: N of whatever `decode` takes.
        decode: returns the image of a file, uint8 [H, W, 3].
        size: (H, W).

    Attributes:
        failure: the first exception with which a file could not be decoded, or None.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Sequence[Any], decode: Callable[[Any], np.ndarray], size: tuple[int, int]) -> None:
        self._files, self._decode = files, decode
        self._lock = threading.Lock()
        self.shape = (len(files), *size, 3)
        self.failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> np.ndarray:
        try:
            return self._decode(self._files[index])
        except Exception as error:
            # TensorFlow passes on the text of an error, but not the error itself: `pipeline` raises this one instead.
            with self._lock:
                self.failure = self.failure or error
            raise


def failure(bank: Bank | str) -> Exception | None:
    """The first exception with which a file of the bank could not be decoded, or None."""
    return getattr(bank, 'failure', None)
