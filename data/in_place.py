"""The base of the data sets whose files are read where they lie: no copy, no preparation.

A subclass says which files there are (`_find_records`); the rest is here: the splits and features of
TFDS for `tfds.load`, and `records` and `read` for those who want the files themselves, with parallel
decoding and clear errors. Nothing is ever written or deleted under the folder, which is the user's.
"""

import abc
import dataclasses
import os

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from draem_jax import images
from draem_jax.errors import UserError

NORMAL = 'good'  # The defect type of an image without defect, as MVTec AD names its folders.


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a data set: where its files are, and what is known of it.

    Attributes:
        image: path of the image.
        mask: path of the mask; None for a normal image, and for a defect whose type has no masks.
        label: 0 normal, 1 anomalous.
        defect_type: 'good' for a normal image.
        filename: path of the image below the data set's root, with forward slashes.
    """

    image: str
    mask: str | None
    label: int
    defect_type: str
    filename: str

    @property
    def has_mask(self):
        """Whether it is known which pixels are anomalous; of a normal image it is: none."""
        return self.label == 0 or self.mask is not None


def read(record, size=None, antialias=False):
    """Decodes a record's files.

    Args:
        record: the `Record` to read.
        size: (height, width) to resize to; None keeps the native size.
        antialias: how the image is shrunk, as in `images.resize`; the mask is always resized bilinearly.

    Returns:
        Dict of image uint8 [H, W, 3], mask uint8 [H, W, 1] from 0 to 255, label int, defect_type str,
        filename str, and has_mask bool: False where the mask is all zero because nobody drew one.

    Raises:
        UserError: a file cannot be read, or the mask has another size than its image.
    """
    image = images.read_image(record.image)
    mask = np.zeros(image.shape[:2], np.uint8) if record.mask is None else images.read_mask(record.mask)
    if mask.shape != image.shape[:2]:
        raise UserError(
            f"Mask '{record.mask}' is {mask.shape[1]} x {mask.shape[0]} pixels (width x height), "
            f"but its image '{record.image}' is {image.shape[1]} x {image.shape[0]}. They must agree."
        )
    if size is not None:
        image = images.resize(image, size, antialias=antialias)
        mask = images.resize(mask, size)
    return {
        'image': image,
        'mask': mask[..., None],
        'label': record.label,
        'defect_type': record.defect_type,
        'filename': record.filename,
        'has_mask': record.has_mask,
    }


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self):
        """Asks no server for what only this machine can know."""


class InPlaceBuilder(tfds.core.DatasetBuilder, skip_registration=True):
    """A TFDS builder over a folder of images, as it lies.

    `data_dir` is the data set's root, or, where the data set has configs (its categories), the folder that
    holds one folder for each. `records` and `data.in_place.read` need no TensorFlow, `as_dataset` and `tfds.load` do.
    """

    VERSION = tfds.core.Version('1.0.0')

    @abc.abstractmethod
    def _find_records(self, root):
        """Lists the files.

        Args:
            root: path of the folder. Whether it exists is still to be checked.

        Returns:
            Dict from split name to a list of `Record`, each sorted by filename. A split without images is left out.

        Raises:
            UserError: no folder, no images, or masks missing.
        """

    def records(self, split):
        """The records of a split in a stable order, the same on every machine.

        Args:
            split: 'train', 'test', or any split that TFDS understands, such as 'train[80%:]'.

        Returns:
            List of `Record`.

        Raises:
            UserError: the data set has no such split.
        """
        try:
            instructions = self.info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            raise UserError(
                f"No split '{split}' in '{self.data_dir}'. Found: {', '.join(self.info.splits) or 'none'}."
            ) from error
        split_of = {self.info.splits[name].filenames[0]: name for name in self.info.splits}
        records = []
        for part in instructions:
            all_records = self._records[split_of[os.path.basename(part.filename)]]
            records += all_records[part.skip : None if part.take == -1 else part.skip + part.take]
        return records

    def has_masks(self, defect_type):
        """Whether the images of a defect type come with masks; True for 'good', whose masks are all zero."""
        return all(record.has_mask for record in self._records.get('test', ()) if record.defect_type == defect_type)

    def is_prepared(self):
        """Always False: of a prepared data set TFDS believes that it may delete the folder and make it anew."""
        return False

    def download_and_prepare(self, **kwargs):
        """Does nothing, whatever is asked for: the files are read where they lie."""

    def _download_and_prepare(self, dl_manager, download_config=None):
        raise AssertionError('The files are read where they lie.')

    def _build_data_dir(self, given_data_dir):
        if not given_data_dir:
            raise UserError(f"'{self.name}' is read where it lies: say where, with data_dir or --config.dataset.root.")
        given_data_dir = os.path.expanduser(given_data_dir)
        root = os.path.join(given_data_dir, self.builder_config_name or '')
        return given_data_dir, root.rstrip(os.sep) or os.sep

    def _info(self):
        self._records = self._find_records(self.data_dir)
        info = _LocalInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3)),
                    'mask': tfds.features.Image(shape=(None, None, 1)),
                    'label': tfds.features.ClassLabel(names=['normal', 'anomalous']),
                    'defect_type': tfds.features.Text(),
                    'filename': tfds.features.Text(),
                    'has_mask': tfds.features.Scalar(dtype=np.bool_),
                }
            ),
            supervised_keys=('image', 'label'),
            description=type(self).__doc__,
            disable_shuffling=True,
        )
        splits = [
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(records)],
                num_bytes=0,
                # No such file exists; TFDS wants a name to cut a split such as 'train[40%:]' by.
                filename_template=naming.ShardedFileTemplate(
                    split=split, dataset_name=self.name, data_dir=self.data_path, filetype_suffix='in_place'
                ),
            )
            for split, records in self._records.items()
        ]
        info.set_splits(tfds.core.splits.SplitDict(splits))
        return info

    def _as_dataset(self, split, decoders=None, read_config=None, shuffle_files=False):
        """One example per file, in the order of `records`; there are no shards to shuffle."""
        if decoders:
            raise ValueError('Decoders are not supported: the files are decoded by draem_jax.images.')
        import tensorflow as tf  # Takes seconds, and nothing else here needs it.

        records = self.records(split)
        types = {name: feature.tf_dtype for name, feature in self.info.features.items()}

        def read_files(index):
            example = read(records[index])
            return [np.asarray(example[name], types[name].as_numpy_dtype) for name in types]

        def load(index):
            values = tf.numpy_function(read_files, [index], list(types.values()))
            example = dict(zip(types, values, strict=True))
            for name, value in example.items():
                value.set_shape(self.info.features[name].shape)
            return example

        return tf.data.Dataset.range(len(records)).map(load, num_parallel_calls=tf.data.AUTOTUNE)
