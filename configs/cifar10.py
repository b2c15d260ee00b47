"""CIFAR-10, one class against the nine others: trained on its 5,000 training images, tested on all 10,000 test images.

    python train.py --config=configs/cifar10.py:cat --config.dataset.texture_root=DTD/images --workdir=runs/cat

The root is where TFDS keeps `cifar10`, by default its own folder; TFDS downloads what is missing. The result is the
AUROC of images, per class, then the mean of the ten; there are no masks, so there is no AUROC of pixels. DRAEM's paper
has no numbers for CIFAR-10, and DRAEM was not made for it: here the anomalies are other objects. The length is that of
MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = 'airplane') -> ConfigDict:
    """`arg` is the category, optionally with the preset: 'airplane' or 'airplane,paper'."""
    category, _, preset = (arg or 'airplane').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'cifar10_one_class'
    config.dataset.category = category
    config.dataset.image_size = (32, 32)
    config.evaluation.score_window = 3  # 21 at 256 px
    return config
