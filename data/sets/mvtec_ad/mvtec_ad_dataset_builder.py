"""MVTec AD: fifteen categories of objects and textures, with a mask for every defect.

References:
    Bergmann et al., MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection, CVPR 2019.
    https://www.mvtec.com/company/research/datasets/mvtec-ad
"""

import tensorflow_datasets as tfds

from data.sets.folder.folder_dataset_builder import list_records
from data.sets.in_place import InPlaceBuilder, Records

CATEGORIES = (
    'bottle',
    'cable',
    'capsule',
    'carpet',
    'grid',
    'hazelnut',
    'leather',
    'metal_nut',
    'pill',
    'screw',
    'tile',
    'toothbrush',
    'transistor',
    'wood',
    'zipper',
)


class Builder(InPlaceBuilder):
    """One category: `tfds.load('mvtec_ad/screw', data_dir=<the folder that holds 'screw'>)`."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    LISTS_ALL_FILES = True

    def _find_records(self, root: str) -> Records:
        return list_records(root)
