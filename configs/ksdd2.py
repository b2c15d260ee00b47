"""KolektorSDD2, unsupervised: trained on the training images with an empty mask, tested on all test images.

    python train.py --config=configs/ksdd2.py --config.dataset.root=KSDD2 \
        --config.dataset.texture_root=DTD/images --workdir=runs/ksdd2

The root is the folder that holds `train` and `test`. The images are tall, about 230 x 630 pixels (width x height), and
keep their shape here, which takes 2.5 times the memory and the work of 256 x 256. Papers usually report the average
precision of images and of pixels (image_ap, pixel_ap in results.json). DRAEM's paper has no numbers for KolektorSDD2; a
later paper of its authors (DSR, ECCV 2022) has a table for it, which we could not read. The length is that of MVTec AD.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is the preset, 'official' or 'paper'."""
    config = default.get_config(arg or 'official')
    config.dataset.name = 'ksdd2'
    config.dataset.image_size = (640, 256)  # (height, width), multiples of 32 near the images' own.
    return config
