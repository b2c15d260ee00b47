"""MPDD, one category: trained on `train/good`, tested on all of `test`.

    python train.py --config=configs/mpdd.py:tubes --config.dataset.root=MPDD \
        --config.dataset.texture_root=DTD/images --workdir=runs/tubes

The root is the folder that holds the six categories. It is scored as MVTec AD, per category, then the mean of the six.
DRAEM's paper has no numbers for MPDD, and we could not trace the numbers of others to their settings. Size and length
are those of MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = 'bracket_black') -> ConfigDict:
    """`arg` is the category, optionally with the preset: 'bracket_black' or 'bracket_black,paper'."""
    category, _, preset = (arg or 'bracket_black').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'mpdd'
    config.dataset.category = category
    return config
