"""DAGM 2007: ten drawn surfaces, each with one kind of defect under a weak mask, an ellipse around it.

    ROOT/Class1/Train/0576.PNG
    ROOT/Class1/Train/Label/0595_label.PNG      for defective images only
    ROOT/Class1/Test/0001.PNG
    ROOT/Class1/Test/Label/0002_label.PNG

The `Labels.txt` beside the masks are not needed: an image with a mask is defective. All ten classes are passed on in
this form today. The older form of the contest's six classes, `Class1` and `Class1_def`, is not read.

References:
    Wieler, Hahn, Weakly Supervised Learning for Industrial Optical Inspection, DAGM 2007.
    https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection
"""

import os
import pathlib

import tensorflow_datasets as tfds

from data.sets.in_place import NORMAL, InPlaceBuilder, Record, Records, make_record, what_is_near
from draem_jax import images
from draem_jax.errors import UserError

CATEGORIES = tuple(f'Class{number}' for number in range(1, 11))
_MASK_ENDING = '_label'
_MASK_FOLDER = 'Label'


class Builder(InPlaceBuilder):
    """One class: `tfds.load('dagm/Class1', data_dir=<the folder that holds 'Class1'>)`.

    Defective training images are left out. With the option `supervised` they are in the split 'train_defective'.
    """

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    def _find_records(self, root: str, *, supervised: bool = False) -> Records:
        training = _list_part(root, 'Train')
        records = {'train': [record for record in training if not record.label]}
        if supervised:
            records['train_defective'] = [record for record in training if record.label]
        records['test'] = _list_part(root, 'Test')
        return records


def _list_part(root: str, part: str) -> list[Record]:
    """The records of 'Train' or 'Test'; an image that has a mask is defective."""
    folder = os.path.join(root, part)
    label_folder = os.path.join(folder, _MASK_FOLDER)
    masks = {pathlib.PurePath(path).stem: path for path in images.list_images(label_folder, allow_none=True)}
    paths = [
        path
        for path in images.list_images(folder, allow_none=True)
        if _MASK_FOLDER not in pathlib.PurePath(path).relative_to(folder).parts
    ]
    # Without its masks a defective image would pass for a normal one.
    for missing, where in ((not paths, folder), (not masks, label_folder)):
        if missing:
            raise UserError(
                f"No images under '{where}'. {what_is_near(where)} Is --config.dataset.root the folder that holds "
                "'Class1'?"
            )
    records = []
    for path in paths:
        mask = masks.pop(f'{pathlib.PurePath(path).stem}{_MASK_ENDING}', None)
        records.append(make_record(root, path, mask=mask, defect_type='defect' if mask else NORMAL))
    if masks:
        raise UserError(
            f"'{min(masks.values())}' belongs to no image in '{folder}'. Expected NNNN{_MASK_ENDING}.PNG for NNNN.PNG."
        )
    return records
