"""VisA, one category: trained on the normal images of the table 1cls, tested on its normal and anomalous ones.

    python train.py --config=configs/visa.py:pcb1 --config.dataset.root=VISA \
        --config.dataset.texture_root=DTD/images --workdir=runs/pcb1

The root is the folder that holds the twelve categories and `split_csv`. It is scored as MVTec AD, per category, then
the mean of the twelve. DRAEM's paper is older than VisA. Others print numbers for it; we could not trace any of them to
its size, length and seeds, so we give none. Size and length are those of MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = 'candle') -> ConfigDict:
    """`arg` is the category, optionally with the preset: 'candle' or 'candle,paper'."""
    category, _, preset = (arg or 'candle').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'visa'
    config.dataset.category = category
    return config
