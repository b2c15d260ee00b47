"""KolektorSDD2: one surface, tall images of about 230 x 630 pixels (width x height), a mask for every image.

    ROOT/train/10000.png
    ROOT/train/10000_GT.png                     all zero where the image is normal
    ROOT/test/20000.png
    ROOT/test/20000_GT.png

References:
    Bozic, Tabernik, Skocaj, Mixed Supervision for Surface-Defect Detection: From Weakly to Fully Supervised Learning,
    Computers in Industry 2021. https://www.vicos.si/resources/kolektorsdd2/
"""

import os
import pathlib

from data.sets.in_place import NORMAL, InPlaceBuilder, Record, Records, have_defects, make_record, what_is_near
from draem_jax import images
from draem_jax.errors import UserError

_MASK_ENDING = '_GT'


class Builder(InPlaceBuilder):
    """All of it: `tfds.load('ksdd2', data_dir=<the folder that holds 'train' and 'test'>)`.

    Defective training images are left out. With the option `supervised` they are in the split 'train_defective'.
    Making a builder reads all the masks, to know which images are normal: seconds.
    """

    def _find_records(self, root: str, *, supervised: bool = False) -> Records:
        training = _list_part(root, 'train')
        records = {'train': [record for record in training if not record.label]}
        if supervised:
            records['train_defective'] = [record for record in training if record.label]
        records['test'] = _list_part(root, 'test')
        return {part: part_records for part, part_records in records.items() if part_records}


def _list_part(root: str, part: str) -> list[Record]:
    """The records of 'train' or 'test'; an image with an empty mask is normal."""
    folder = os.path.join(root, part)
    masks, paths = {}, []
    for path in images.list_images(folder, allow_none=True):
        key = pathlib.PurePath(path).with_suffix('').as_posix()
        if key.endswith(_MASK_ENDING):
            masks[key.removesuffix(_MASK_ENDING)] = path
        else:
            paths.append((key, path))
    if not paths:
        raise UserError(
            f"No images under '{folder}'. {what_is_near(folder)} Is --config.dataset.root the folder that holds "
            "'train' and 'test'?"
        )
    for key, path in paths:
        if key not in masks:
            raise UserError(f"No mask for '{path}'. Expected '{key}{_MASK_ENDING}.png': normal images have one too.")
    return [
        make_record(root, path, mask=masks[key], defect_type='defect')
        if is_defective
        else make_record(root, path, defect_type=NORMAL)
        for (key, path), is_defective in zip(paths, have_defects([masks[key] for key, _ in paths]), strict=True)
    ]
