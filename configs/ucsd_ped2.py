"""UCSD Ped2: trained on the frames of the training clips, each by itself, tested on all frames of the test clips.

    python train.py --config=configs/ucsd_ped2.py --config.dataset.root=UCSDped2 \
        --config.dataset.texture_root=DTD/images --workdir=runs/ucsd_ped2

The root is the folder that holds `Train` and `Test`. The result is the AUROC of frames over all test frames at once
(image_auroc in results.json); a frame is anomalous if its mask is not empty. DRAEM's paper has no numbers for Ped2; an
index of results lists an AUC of 69.58 for DRAEM, but we found no source for it. Single frames cannot show what looks
right and moves wrongly. The length is that of MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is the preset, 'official' or 'paper'."""
    config = default.get_config(arg or 'official')
    config.dataset.name = 'ucsd_ped2'
    config.dataset.image_size = (256, 384)  # (height, width); the frames have 240 x 360
    return config
