"""MPDD: six kinds of painted metal parts, in the layout of MVTec AD.

References:
    Jezek et al., Deep Learning-Based Defect Detection of Metal Parts: Evaluating Current Methods in Complex
    Conditions, ICUMT 2021. https://github.com/stepanje/MPDD
"""

import tensorflow_datasets as tfds

from data.sets.folder.folder_dataset_builder import list_records
from data.sets.in_place import InPlaceBuilder, Records

CATEGORIES = ('bracket_black', 'bracket_brown', 'bracket_white', 'connector', 'metal_plate', 'tubes')


class Builder(InPlaceBuilder):
    """One category: `tfds.load('mpdd/tubes', data_dir=<the folder that holds 'tubes'>)`."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    LISTS_ALL_FILES = True

    def _find_records(self, root: str) -> Records:
        return list_records(root)
