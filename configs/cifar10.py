"""CIFAR-10, one class against the nine others: trained on its 5,000 training images, tested on all 10,000 test images.

    python train.py --config=configs/cifar10.py:cat --config.dataset.texture_root=DTD/images --workdir=runs/cat

The root is where TFDS keeps `cifar10`, by default its own folder; what is not there is downloaded. Reported is the
AUROC of images, per class, then the mean of the ten; there are no masks, so none of pixels. DRAEM's paper has no
numbers for it, and DRAEM was not made for it: here the anomalies are other objects. The length is that of MVTec AD.
"""

from configs import default


def get_config(arg='airplane'):
    """Args: arg: the category, optionally with the preset: 'airplane' or 'airplane,paper'."""
    category, _, preset = (arg or 'airplane').partition(',')
    config = default.get_config(preset or 'official')
    config.dataset.name = 'cifar10_one_class'
    config.dataset.category = category
    config.dataset.image_size = (32, 32)
    config.evaluation.score_window = 3  # 21 at 256 px.
    return config
