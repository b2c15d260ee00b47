"""BTAD, beanTech anomaly detection: three industrial products, with a mask for every defect.

    ROOT/<category>/train/ok/*
    ROOT/<category>/test/ok/*
    ROOT/<category>/test/ko/*                   defective
    ROOT/<category>/ground_truth/ko/*           the masks, named as their images

Images and masks are BMP or PNG; the mask of a BMP may be a PNG.

References:
    Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization, ISIE 2021.
    https://github.com/pankajmishra000/VT-ADL
"""

import tensorflow_datasets as tfds

from data.sets.folder.folder_dataset_builder import list_named
from data.sets.in_place import InPlaceBuilder, Records

CATEGORIES = ('01', '02', '03')


class Builder(InPlaceBuilder):
    """One product: `tfds.load('btad/01', data_dir=<the folder that holds '01'>)`."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    def _find_records(self, root: str) -> Records:
        return list_named(root, normal='train/ok', normal_test='test/ok', defects='test/ko', masks='ground_truth/ko')
