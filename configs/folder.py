"""Your own folder: good images, and defective ones to test on if there are any.

    python train.py --config=configs/folder.py --config.dataset.root=FOLDER --workdir=runs/mine

FOLDER holds `train/good/`, `test/<kind>/` and `ground_truth/<kind>/` as in MVTec AD, or nothing but good images. A
tenth of the good images is kept out of training, to watch it and to set the threshold. Where there are no test images,
another tenth is kept for the test, with anomalies simulated on them. Textures are drawn unless
--config.dataset.texture_source=folder and --config.dataset.texture_root name a folder of images; real textures (DTD)
make better detectors.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is the preset, 'official' or 'paper'."""
    config = default.get_config(arg or 'official')
    config.dataset.validation_fraction = 0.1
    config.dataset.test_fraction = 0.1
    config.dataset.texture_source = 'procedural'
    return config
