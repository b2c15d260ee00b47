"""Helpers for tests that read what `trees` draws: a data set that TFDS prepares, and images by their grey."""

import numpy as np
import tensorflow_datasets as tfds

import data
from data.sets import in_place


class Drawn(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set that TFDS prepares and keeps, as `simulated` is: what `draw_tree` draws."""

    VERSION = tfds.core.Version('1.0.0')
    source = ''  # the folder that `draw_tree` drew; each test sets it

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'mask': tfds.features.Image(shape=(None, None, 1)),
            'label': np.int64,
            'defect_type': tfds.features.Text(),
            'filename': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split):
        for position, record in enumerate(data.make_builder('folder', root=self.source).records(split)):
            example = in_place.read(record)
            example.pop('has_mask')
            yield position, example


def greys(images):
    """The grey of each image of one grey, [N]; fails on any other image."""
    images = np.stack([images[k] for k in range(len(images))])
    values = images[:, 0, 0, 0]
    np.testing.assert_array_equal(images, np.broadcast_to(values[:, None, None, None], images.shape))
    return values.tolist()
