"""MPDD, one category: trained on `train/good`, tested on all of `test`.

    python train.py --config=configs/mpdd.py:tubes --config.dataset.root=MPDD \
        --config.dataset.texture_root=DTD/images --workdir=runs/tubes

The root is the folder that holds the six categories. Scored as MVTec AD is, per category, then the mean of the six.
DRAEM's paper has no numbers for MPDD, and we could not trace those of others to their settings. Size and length are
those of MVTec AD.
"""

from configs import default


def get_config(arg='bracket_black'):
    """Args: arg: the category, optionally with the preset: 'bracket_black' or 'bracket_black,paper'."""
    category, _, preset = (arg or 'bracket_black').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'mpdd'
    config.dataset.category = category
    return config
