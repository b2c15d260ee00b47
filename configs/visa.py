"""VisA, one category: trained on the normal images of the table 1cls, tested on the normal and anomalous ones of it.

    python train.py --config=configs/visa.py:pcb1 --config.dataset.root=VISA \
        --config.dataset.texture_root=DTD/images --workdir=runs/pcb1

The root is the folder that holds the twelve categories and `split_csv`. Scored as MVTec AD is, per category, then the
mean of the twelve. DRAEM's paper is older than VisA; others print numbers for it, none of which we could trace to its
size, length and seeds, so none stands here. Size and length are those of MVTec AD.
"""

from configs import default


def get_config(arg='candle'):
    """Args: arg: the category, optionally with the preset: 'candle' or 'candle,paper'."""
    category, _, preset = (arg or 'candle').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'visa'
    config.dataset.category = category
    return config
