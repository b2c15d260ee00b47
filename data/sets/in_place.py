"""The base of the data sets whose files are read where they lie: no copy, no preparation.

A subclass lists its files (`_find_records`); the rest is here: the splits and features of TFDS for `tfds.load`, and
`records` and `read`, which give the files themselves, without TensorFlow and with clear errors. Nothing is ever written
or deleted under the folder, which is the user's.
"""

import abc
import concurrent.futures
import dataclasses
import inspect
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

from draem_jax import images, storage
from draem_jax.errors import UserError
from draem_jax.threads import core_count

if TYPE_CHECKING:
    import tensorflow as tf

NORMAL = 'good'  # The defect type of an image without defect, as MVTec AD names its folders.

Example = dict[str, Any]  # What `read` returns.


@dataclasses.dataclass(frozen=True)
class MaskReading:
    """How a mask is read: the arguments of `images.read_mask`, which explains them."""

    holds_ids: bool = False
    ids: tuple[int, ...] = ()
    inverted: bool = False


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a data set: where its files are, and what is known of it.

    Attributes:
        image: path of the image.
        mask: path of the mask; None for a normal image, and for a defect whose type has no masks.
        label: 0 normal, 1 anomalous.
        defect_type: 'good' for a normal image.
        filename: path of the image below the data set's root, with forward slashes.
        mask_reading: how the mask is read.
    """

    image: str
    mask: str | None
    label: int
    defect_type: str
    filename: str
    mask_reading: MaskReading = MaskReading()

    def with_mask_reading(self, reading: MaskReading) -> 'Record':
        """The same record, whose mask is read in another way."""
        return dataclasses.replace(self, mask_reading=reading)

    @property
    def has_mask(self) -> bool:
        """Whether it is known which pixels are anomalous; in a normal image none are."""
        return self.label == 0 or self.mask is not None


# What `_find_records` returns: {split: records sorted by filename}.
Records = dict[str, list[Record]]


def make_record(
    root: str,
    image: str,
    *,
    mask: str | None = None,
    defect_type: str = NORMAL,
    mask_reading: MaskReading = MaskReading(),
) -> Record:
    """The `Record` of an image at a path that starts with `root`; it is normal where `defect_type` is 'good'."""
    filename = pathlib.PurePath(image).relative_to(root).as_posix()
    return Record(image, mask, int(defect_type != NORMAL), defect_type, filename, mask_reading)


def have_defects(masks: Sequence[str]) -> list[bool]:
    """Reads masks, on threads: for data sets that say by an empty mask that an image is normal.

    Args:
        masks: paths.

    Returns:
        For each mask whether any of its pixels is above 0.

    Raises:
        UserError: a mask cannot be read.
    """
    with concurrent.futures.ThreadPoolExecutor(core_count()) as pool:
        return list(pool.map(lambda path: bool(images.read_mask(path).any()), masks))


def what_is_near(path: str) -> str:
    """What the nearest existing folder on the way to `path` holds, as a sentence for an error message."""
    while not storage.is_folder(path):
        above = os.path.dirname(path if storage.is_remote(path) else os.path.abspath(path))
        if above == path or above.endswith(':'):  # Not even the bucket is there.
            return 'Found: nothing.'
        path = above
    names = [name for name in storage.names_in(path) if not name.startswith('.')]
    return f"Found in '{path}': {quoted(names) or 'nothing'}."


def quoted(names: Sequence[str], limit: int = 6) -> str:
    """The first names, in quotation marks, for an error message."""
    return ', '.join(f"'{name}'" for name in names[:limit]) + (', ...' if len(names) > limit else '')


def read(record: Record, size: tuple[int, int] | None = None, antialias: bool = False, bit_depth: int = 0) -> Example:
    """Decodes a record's files.

    Args:
        record: the `Record` to read.
        size: (height, width) to resize to; None keeps the native size.
        antialias: how the image is shrunk, as in `images.resize`; the mask is always resized bilinearly.
        bit_depth: as in `images.read_image`.

    Returns:
        Dict of image uint8 [H, W, 3], mask uint8 [H, W, 1] from 0 to 255, label int, defect_type str,
        filename str, and has_mask bool: False where the mask is all zero because nobody drew one.

    Raises:
        UserError: a file cannot be read, or the mask has another size than its image.
    """
    image = images.read_image(record.image, bit_depth=bit_depth)
    if record.mask is not None:
        mask, remarks = images.examine_mask(record.mask, **dataclasses.asdict(record.mask_reading))
        for kind, remark in remarks.items():
            text = f"Note: mask '{record.mask}' {remark} tools/check_data.py lists all such masks."
            images.tell_once(f'{record.image.removesuffix(record.filename)} {kind}', text)
    else:
        mask = np.zeros(image.shape[:2], np.uint8)
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


def features(size: tuple[int | None, int | None] = (None, None)) -> tfds.features.FeaturesDict:
    """The features of an example, as TFDS wants them declared; `size` is (height, width) where all images share one."""
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


def set_splits(info: tfds.core.DatasetInfo, counts: Mapping[str, int]) -> None:
    """Gives a `DatasetInfo` splits for which TFDS has no files of its own: {name: number of examples}."""
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


def split_slices(builder: tfds.core.DatasetBuilder, split: str) -> list[tuple[str, slice]]:
    """The parts of a split such as 'train[40%:]+test', for a builder whose splits were set by `set_splits`.

    Returns:
        List of (name, slice): the name of a split, and which of its examples to take.

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
    def initialize_from_bucket(self) -> None:
        """Does not ask TFDS's server, which cannot know the user's files."""


class InPlaceBuilder(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types.
    """A TFDS builder over a folder of images, as it lies.

    `data_dir` is the data set's root, or, where the data set has configs (its categories), the folder that holds one
    folder for each. `records` and `read` need no TensorFlow; `as_dataset` and `tfds.load` do. Further options, which
    `data.make_builder` takes by name and `tfds.load` as `builder_kwargs`, are those of `_find_records`.
    """

    VERSION = tfds.core.Version('1.0.0')
    LISTS_ALL_FILES = False  # Whether an image under the root that no record names is worth a warning.

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        config: str | tfds.core.BuilderConfig | None = None,
        version: str | tfds.core.Version | None = None,
        **options: Any,
    ) -> None:
        known = [name for name in inspect.signature(self._find_records).parameters if name != 'root']
        for name in options:
            if name not in known:
                raise UserError(f"'{self.name}' has no option '{name}'. Known: {', '.join(known) or 'none'}.")
        self._options = options
        super().__init__(data_dir=data_dir, config=config, version=version)
        self._original_state |= options  # Pickle makes the builder again from these.

    @abc.abstractmethod
    def _find_records(self, root: str) -> Records:
        """Lists the files. A subclass may take options, by keyword and each with a default.

        Args:
            root: path of the folder, which may not exist.

        Returns:
            Dict from split name to a list of `Record`, each sorted by filename. A split without images is left out.

        Raises:
            UserError: no folder, no images, or masks missing.
        """

    def records(self, split: str) -> list[Record]:
        """The records of a split in a stable order, the same on every machine.

        Args:
            split: 'train', 'test', or any split that TFDS understands, such as 'train[80%:]'.

        Raises:
            UserError: the data set has no such split.
        """
        return [record for name, chosen in split_slices(self, split) for record in self._records[name][chosen]]

    def is_prepared(self) -> bool:
        """Always False: TFDS may delete the folder of a prepared data set to make it anew."""
        return False

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Does nothing, whatever is asked for: the files are read where they lie."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        raise AssertionError('The files are read where they lie.')

    def _build_data_dir(self, given_data_dir: str | None) -> tuple[str, str]:
        if not given_data_dir:
            raise UserError(f"'{self.name}' is read where it lies: say where, with data_dir or --config.dataset.root.")
        given_data_dir = os.path.expanduser(given_data_dir)
        root = os.path.join(given_data_dir, self.builder_config_name or '').rstrip(os.sep) or os.sep
        if storage.is_remote(root):
            storage.is_folder(root)  # TFDS looks into it, and has no such error for a bucket that cannot be reached.
        return given_data_dir, root

    def _info(self) -> tfds.core.DatasetInfo:
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

    def _as_dataset(
        self, split: str, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
    ) -> 'tf.data.Dataset':
        """One example per file, in the order of `records`; there are no shards to shuffle."""
        if decoders:
            raise ValueError('Decoders are not supported: the files are decoded by draem_jax.images.')
        import tensorflow as tf  # Here, because it takes seconds and nothing else in this file needs it.

        records = self.records(split)
        types = {name: feature.tf_dtype for name, feature in self.info.features.items()}

        def read_files(index: np.ndarray) -> list[np.ndarray]:
            example = read(records[index])
            return [np.asarray(example[name], types[name].as_numpy_dtype) for name in types]

        def load(index: tf.Tensor) -> dict[str, tf.Tensor]:
            values = tf.numpy_function(read_files, [index], list(types.values()))
            example = dict(zip(types, values, strict=True))
            for name, value in example.items():
                value.set_shape(self.info.features[name].shape)
            return example

        return tf.data.Dataset.range(len(records)).map(load, num_parallel_calls=tf.data.AUTOTUNE)
