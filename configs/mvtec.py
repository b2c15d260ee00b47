"""MVTec AD, one category, at the size and length of the paper.

    python train.py --config=configs/mvtec.py:bottle --config.dataset.root=MVTEC_AD \
        --config.dataset.texture_root=DTD/images --workdir=runs/bottle

The root is the folder that holds the fifteen categories. Published (image AUROC; pixel AUROC / AP, mean of fifteen):
98.0; 97.3 / 68.4 by the paper, 98.1; 97.5 / 68.9 by the released weights.

`configs/mvtec.py:unified` trains one model on the normal images of all fifteen together and evaluates it on each, with
the mean. The paper does not have this multi-class setting.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = 'bottle') -> ConfigDict:
    """`arg` is the category or 'unified', optionally with the preset: 'bottle' or 'bottle,paper'."""
    category, _, preset = (arg or 'bottle').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'mvtec_ad'
    config.dataset.category = 'all' if category == 'unified' else category
    return config
