"""UCSD Ped2: frames of a camera above a walkway; whatever does not walk is anomalous.

    ROOT/Train/Train001/001.tif                 sixteen clips without anomalies
    ROOT/Test/Test001/001.tif                   twelve clips
    ROOT/Test/Test001_gt/001.bmp                the masks, named as their frames; all zero where a frame is normal

ROOT is the folder `UCSDped2` of the archive. (Its `UCSDped1` has masks for some of the clips only and is not read.)

References:
    Mahadevan, Li, Bhalodia, Vasconcelos, Anomaly Detection in Crowded Scenes, CVPR 2010.
    http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm
"""

import os
import pathlib

from data.sets.in_place import NORMAL, InPlaceBuilder, Records, have_defects, make_record, what_is_near
from draem_jax import images
from draem_jax.errors import UserError

_MASK_ENDING = '_gt'


class Builder(InPlaceBuilder):
    """All of it: `tfds.load('ucsd_ped2', data_dir=<the folder that holds 'Train' and 'Test'>)`.

    Making a builder reads all the masks, to know which frames are normal: seconds.
    """

    def _find_records(self, root: str) -> Records:
        training = _list_frames(root, 'Train')
        test = _list_frames(root, 'Test')
        masks, frames = {}, []
        for path in test:
            clip, *inner = pathlib.PurePath(path).relative_to(os.path.join(root, 'Test')).with_suffix('').parts
            if clip.endswith(_MASK_ENDING):
                masks[clip.removesuffix(_MASK_ENDING), *inner] = path
            else:
                frames.append(((clip, *inner), path))
        for key, path in frames:
            if key not in masks:
                expected = os.path.join(root, 'Test', f'{key[0]}{_MASK_ENDING}', *key[1:])
                raise UserError(f"No mask for '{path}'. Expected '{expected}.bmp': normal frames have one too.")
        are_anomalous = have_defects([masks[key] for key, _ in frames])
        return {
            'train': [make_record(root, path) for path in training],
            'test': [
                make_record(root, path, mask=masks[key], defect_type='anomaly')
                if is_anomalous
                else make_record(root, path, defect_type=NORMAL)
                for (key, path), is_anomalous in zip(frames, are_anomalous, strict=True)
            ],
        }


def _list_frames(root: str, part: str) -> list[str]:
    folder = os.path.join(root, part)
    paths = images.list_images(folder, allow_none=True)
    if not paths:
        raise UserError(
            f"No frames under '{folder}'. {what_is_near(folder)} Is --config.dataset.root the folder 'UCSDped2', which "
            "holds 'Train' and 'Test'?"
        )
    return paths
