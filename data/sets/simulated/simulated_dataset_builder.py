"""TFDS builder of the surfaces that this project draws itself: `tfds.builder('simulated/fabric')`."""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from data import prepared
from data.sets.simulated import drawing

_DESCRIPTION = """
Drawn surfaces for defect detection: woven fabric, wood grain, and turned metal. Training images are flawless; the test
split holds flawless images and five kinds of defects with exact masks. Nothing is downloaded.
"""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Draws its images once and keeps them in TFDS's data_dir."""

    VERSION = tfds.core.Version('1.0.1')  # Raise it with every change of the drawing: TFDS keeps its files by version.
    BUILDER_CONFIGS = [  # noqa: RUF012  TFDS reads it as an attribute of the class.
        tfds.core.BuilderConfig(name=category, description=f'A drawn surface: {category}.')
        for category in drawing.CATEGORIES
    ]

    def __init__(self, **options: Any) -> None:
        # TFDS reads the description of a prepared data set once it knows its folder.
        with prepared.explaining_damage(lambda: getattr(self, '_data_dir', None)):
            super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        size = drawing.SIZE
        return self.dataset_info_from_configs(
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(size, size, 3), encoding_format='png'),
                    'mask': tfds.features.Image(shape=(size, size, 1), encoding_format='png'),
                    'label': np.int64,
                    'defect_type': tfds.features.Text(),
                    'filename': tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        category = self.builder_config.name
        for position, (filename, kind, number) in enumerate(drawing.contents(category, split)):
            image, mask = drawing.draw(category, number, kind=kind)
            yield (
                position,
                {
                    'image': _png(image[..., ::-1]),
                    'mask': _png(mask),
                    'label': int(kind is not None),
                    'defect_type': kind or 'good',
                    'filename': filename,
                },
            )


def _png(image: np.ndarray) -> io.BytesIO:
    """Encodes grey or BGR, as OpenCV orders the channels. TFDS's own encoder takes six times as long."""
    return io.BytesIO(cv2.imencode('.png', image)[1].tobytes())
