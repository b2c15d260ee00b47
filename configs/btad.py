"""BTAD, one product: trained on `train/ok`, tested on `test/ok` and `test/ko`.

    python train.py --config=configs/btad.py:01 --config.dataset.root=BTAD \
        --config.dataset.texture_root=DTD/images --workdir=runs/btad_01

The root is the folder that holds `01`, `02` and `03`. It is scored as MVTec AD, per product, then the mean of the
three. DRAEM's paper has no numbers for BTAD, and we could not trace the numbers of others to their settings. Size and
length are those of MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '01') -> ConfigDict:
    """`arg` is the category, optionally with the preset: '01' or '01,paper'."""
    category, _, preset = (arg or '01').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'btad'
    config.dataset.category = category
    return config
