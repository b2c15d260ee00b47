"""Many images of one size, of which a graph takes one: in memory, on disk, or decoded from its file each time.

Anything serves as a bank that has a `shape` ([N, H, W, C]) and gives an array for an index.
"""

import threading

import numpy as np
import tensorflow as tf


def take(bank, index):
    """One image of a bank, inside a graph.

    A bank that is no tensor is read by Python: TensorFlow would keep a second copy of all of it, and the detour costs
    0.03 ms.

    Args:
        bank: [N, H, W, C] or [N, H, W]: a tensor, or anything with a shape, a dtype, and `bank[k]`.
        index: integer scalar tensor.

    Returns:
        Tensor [H, W, C] or [H, W].
    """
    if tf.is_tensor(bank):
        return tf.gather(bank, index)
    image = tf.numpy_function(lambda k: bank[k], [index], bank.dtype, stateful=False)
    return tf.ensure_shape(image, bank.shape[1:])


def count_of(bank):
    """N, the number of images of a bank: an int, or a scalar tensor for a tensor of unknown shape."""
    return tf.shape(bank)[0] if bank.shape[0] is None else bank.shape[0]


class Selection:
    """Some images of a bank, as a bank.

    Args:
        bank: the bank.
        indices: int [K], which of its images, in this order.
    """

    def __init__(self, bank, indices):
        self._bank, self.indices = bank, indices
        self.shape, self.dtype = (len(indices), *bank.shape[1:]), bank.dtype

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        return self._bank[self.indices[index]]

    @property
    def failure(self):
        """See `FileImages.failure`."""
        return failure(self._bank)


class Joined:
    """The images of several banks of one size, one after the other, as a bank."""

    def __init__(self, banks):
        self._banks = banks
        self._starts = np.cumsum([0, *map(len, banks)])
        self.shape, self.dtype = (int(self._starts[-1]), *banks[0].shape[1:]), banks[0].dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._starts, index, side='right')) - 1
        return self._banks[which][index - self._starts[which]]

    @property
    def failure(self):
        """See `FileImages.failure`."""
        return next(filter(None, map(failure, self._banks)), None)


class FileImages:
    """Images that are decoded anew each time they are asked for, as a bank.

    Args:
        files: N of whatever `decode` takes.
        decode: function of a file -> uint8 [H, W, 3].
        size: (H, W).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files, decode, size):
        self._files, self._decode = files, decode
        self._lock = threading.Lock()
        self.shape = (len(files), *size, 3)
        self.failure = None

    def __len__(self):
        return len(self._files)

    def __getitem__(self, index):
        try:
            return self._decode(self._files[index])
        except Exception as error:
            # TensorFlow passes on the text of an error, but not the error: whoever reads the data set raises this one.
            with self._lock:
                self.failure = self.failure or error
            raise


def failure(bank):
    """The first exception with which a file of the bank could not be decoded, or None."""
    return getattr(bank, 'failure', None)
