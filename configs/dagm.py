"""DAGM 2007, one class: trained on the normal training images, tested on all test images.

    python train.py --config=configs/dagm.py:Class1 --config.dataset.root=DAGM \
        --config.dataset.texture_root=DTD/images --workdir=runs/Class1

The root is the folder that holds `Class1` to `Class10`. The paper publishes, for images, over the ten classes: AUROC
99.0, TPR 96.5, TNR 99.4, accuracy 98.5, the last three at the best threshold on the test images. Scores of pixels say
little, because the masks are coarse ellipses. We do not know the size and length of the paper's runs on DAGM; these are
those of MVTec AD (the images have 512 px).
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = 'Class1') -> ConfigDict:
    """`arg` is the category, optionally with the preset: 'Class1' or 'Class1,paper'."""
    category, _, preset = (arg or 'Class1').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'dagm'
    config.dataset.category = category
    return config
