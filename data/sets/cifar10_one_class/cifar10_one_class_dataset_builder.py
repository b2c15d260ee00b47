"""CIFAR-10, one class against the others: trained on the training images of one class, tested on all test images.

The images are those of TFDS's own `cifar10`, which is downloaded and prepared when asked for
(`data.prepared.prepare`, `tfds.load`), and read again here; nothing is stored twice. There are labels for whole images
only: an image of another class has no mask (`has_mask` is False).

References:
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. https://www.cs.toronto.edu/~kriz/cifar.html
"""

import functools
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds

from data import prepared
from data.sets.in_place import NORMAL, features, set_splits, split_slices
from draem_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

# In the order of CIFAR-10's labels.
CATEGORIES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
_SIZE = (32, 32)


class Builder(tfds.core.DatasetBuilder):
    """One class: `tfds.load('cifar10_one_class/cat')`; `data_dir` is where TFDS keeps `cifar10`.

    A test image of another class is anomalous, and its class is its defect type.
    """

    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    def is_prepared(self) -> bool:
        """Always False: TFDS may delete the folder of a prepared data set, and this one belongs to `cifar10`."""
        return False

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Downloads and prepares TFDS's `cifar10`, where that is not done yet."""
        self._source.download_and_prepare(**kwargs)
        self._count()

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        raise AssertionError('Only cifar10 itself is prepared.')

    def _build_data_dir(self, given_data_dir: str | None) -> tuple[str, str]:
        self._source = prepared.open_builder('cifar10', given_data_dir or '')
        return self._source.data_dir_root, self._source.data_dir_root

    @property
    def prepared_folder(self) -> str:
        """Where TFDS keeps `cifar10`; see `data.prepared.folder_of`."""
        return self._source.data_dir

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=features(_SIZE),
            supervised_keys=('image', 'label'),
            description=type(self).__doc__,
            disable_shuffling=True,
        )

    def _count(self) -> None:
        """Sets the splits, once, by counting labels."""
        if self.info.splits:
            return
        if not self._source.is_prepared():
            raise UserError(
                f"CIFAR-10 is not prepared in '{self._source.data_dir}'. Let download_and_prepare() fetch it, or point "
                '--config.dataset.root at the folder where TFDS keeps it.'
            )
        without_images = {'image': tfds.decode.SkipDecoding()}
        with prepared.explaining_damage(lambda: self.prepared_folder):
            set_splits(
                self.info,
                {
                    split: sum(1 for _ in self._read(split, decoders=without_images).as_numpy_iterator())
                    for split in ('train', 'test')
                },
            )

    def _read(self, split: str, **options: Any) -> 'tf.data.Dataset':
        """The source's examples that belong to a split, in its order."""
        examples = self._source.as_dataset(split=split, shuffle_files=False, **options)
        if split == 'train':
            normal = CATEGORIES.index(self.builder_config.name)
            examples = examples.filter(lambda example: example['label'] == normal)
        return examples

    def _as_dataset(
        self, split: str, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
    ) -> 'tf.data.Dataset':
        """One example per image, in the order of TFDS's `cifar10`; files are not shuffled."""
        if decoders:
            raise ValueError('Decoders are not supported: cifar10 decodes its own images.')
        import tensorflow as tf  # Here, because it takes seconds and nothing else in this file needs it.

        self._count()
        normal = self.builder_config.name
        defect_types = tf.constant([NORMAL if category == normal else category for category in CATEGORIES])

        def convert(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            is_normal = example['label'] == CATEGORIES.index(normal)
            return {
                'image': example['image'],
                'mask': tf.zeros((*_SIZE, 1), tf.uint8),
                'label': tf.cast(~is_normal, tf.int64),
                'defect_type': defect_types[example['label']],
                'filename': example['id'],
                'has_mask': is_normal,
            }

        parts = [
            self._read(name).skip(chosen.start).take(-1 if chosen.stop is None else chosen.stop - chosen.start)
            for name, chosen in split_slices(self, split)
        ]
        return functools.reduce(lambda one, other: one.concatenate(other), parts).map(convert)
