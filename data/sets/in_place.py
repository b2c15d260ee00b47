"""The base of the data sets whose files are read where they lie: no copy, no preparation.

A subclass says which files there are (`_find_records`); the rest is here: the splits and features of
TFDS for `tfds.load`, and `records` and `read` for those who want the files themselves, with parallel
decoding and clear errors. Nothing is ever written or deleted under the folder, which is the user's.
"""

import abc
import concurrent.futures
import dataclasses
import inspect
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from draem_jax import images, storage
from draem_jax.errors import UserError
from draem_jax.threads import core_count

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
        mask_holds_ids: the values of the mask are numbers of defects: whatever is above 0 is anomalous.
    """

    image: str
    mask: str | None
    label: int
    defect_type: str
    filename: str
    mask_holds_ids: bool = False

    @property
    def has_mask(self):
        """Whether it is known which pixels are anomalous; of a normal image it is: none."""
        return self.label == 0 or self.mask is not None


def make_record(root, image, *, mask=None, defect_type=NORMAL, mask_holds_ids=False):
    """The `Record` of an image at a path that starts with `root`; of `defect_type` 'good' it is normal."""
    filename = pathlib.PurePath(image).relative_to(root).as_posix()
    return Record(image, mask, int(defect_type != NORMAL), defect_type, filename, mask_holds_ids)


def have_defects(masks):
    """Reads masks, on threads: for data sets that say by an empty mask that an image is normal.

    Args:
        masks: list of paths.

    Returns:
        List of bool: whether any pixel of the mask is above 0.

    Raises:
        UserError: a mask cannot be read.
    """
    with concurrent.futures.ThreadPoolExecutor(core_count()) as pool:
        return list(pool.map(lambda path: bool(images.read_mask(path).any()), masks))


def what_is_near(path):
    """What the nearest existing folder on the way to `path` holds, as a sentence for an error message."""
    while not storage.is_folder(path):
        above = os.path.dirname(path if storage.is_remote(path) else os.path.abspath(path))
        if above == path or above.endswith(':'):  # Not even the bucket is there.
            return 'Found: nothing.'
        path = above
    names = [name for name in storage.names_in(path) if not name.startswith('.')]
    return f"Found in '{path}': {quoted(names) or 'nothing'}."


def quoted(names, limit=6):
    """The first names, in quotation marks, for an error message."""
    return ', '.join(f"'{name}'" for name in names[:limit]) + (', ...' if len(names) > limit else '')


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
    if record.mask is None:
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        mask = images.read_mask(record.mask, holds_ids=record.mask_holds_ids)
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


def features(size=(None, None)):
    """The features of an example, as TFDS wants them declared; `size` is (height, width), where all have the same."""
    return tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(*size, 3)),
            'mask': tfds.features.Image(shape=(*size, 1)),
            'label': tfds.features.ClassLabel(names=['normal', 'anomalous']),
            'defect_type': tfds.features.Text(),
            'filename': tfds.features.Text(),
            'has_mask': tfds.features.Scalar(dtype=np.bool_),
        }
    )


def set_splits(info, counts):
    """Tells a `DatasetInfo` of splits that no files of TFDS stand for: {name: number of examples}."""
    splits = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[count],
            num_bytes=0,
            # No such file exists; TFDS wants a name to cut a split such as 'train[40%:]' by.
            filename_template=naming.ShardedFileTemplate(
                split=name, dataset_name=info.name, data_dir=tfds.core.Path(info.data_dir), filetype_suffix='in_place'
            ),
        )
        for name, count in counts.items()
    ]
    info.set_splits(tfds.core.splits.SplitDict(splits))


def split_slices(builder, split):
    """What a split such as 'train[40%:]+test' is made of, for a builder whose splits are those of `set_splits`.

    Returns:
        List of (name, slice): of the examples of each named split those to take.

    Raises:
        UserError: the data set has no such split.
    """
    splits = builder.info.splits
    try:
        instructions = splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise UserError(f"No split '{split}' in '{builder.data_dir}'. Found: {', '.join(splits) or 'none'}.") from error
    split_of = {splits[name].filenames[0]: name for name in splits}
    return [
        (
            split_of[os.path.basename(part.filename)],
            slice(part.skip, None if part.take == -1 else part.skip + part.take),
        )
        for part in instructions
    ]


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self):
        """Asks no server for what only this machine can know."""


class InPlaceBuilder(tfds.core.DatasetBuilder, skip_registration=True):
    """A TFDS builder over a folder of images, as it lies.

    `data_dir` is the data set's root, or, where the data set has configs (its categories), the folder that
    holds one folder for each. `records` and `read` need no TensorFlow, `as_dataset` and `tfds.load` do.
    Further options (of `data.make_builder`, or `builder_kwargs` of `tfds.load`) are those of `_find_records`.
    """

    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, *, data_dir=None, config=None, version=None, **options):
        known = [name for name in inspect.signature(self._find_records).parameters if name != 'root']
        for name in options:
            if name not in known:
                raise UserError(f"'{self.name}' has no option '{name}'. Known: {', '.join(known) or 'none'}.")
        self._options = options
        super().__init__(data_dir=data_dir, config=config, version=version)
        self._original_state |= options  # What a pickled builder is made from again.

    @abc.abstractmethod
    def _find_records(self, root):
        """Lists the files.

        Args:
            root: path of the folder. Whether it exists is still to be checked.
            A subclass may take options, by keyword and each with a default.

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
        return [record for name, chosen in split_slices(self, split) for record in self._records[name][chosen]]

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
        self._records = self._find_records(self.data_dir, **self._options)
        info = _LocalInfo(
            builder=self,
            features=features(),
            supervised_keys=('image', 'label'),
            description=type(self).__doc__,
            disable_shuffling=True,
        )
        set_splits(info, {split: len(records) for split, records in self._records.items()})
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
