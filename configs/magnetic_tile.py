"""Magnetic Tile Defects, as its authors publish it, split so that neighbouring frames stay on one side.

    python train.py --config=configs/magnetic_tile.py --config.dataset.root=MAGNETIC_TILE \
        --config.dataset.texture_root=DTD/images --workdir=runs/magnetic_tile

The root is the folder that holds `MT_Free`. There is no official split, and DRAEM's paper has no numbers. Numbers from
a random split are not comparable, because it tests on near-duplicates of training images. Size and length are those of
MVTec AD; configs/small_cpu.py is a small budget with numbers, on another split of this kind.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(arg: str = '') -> ConfigDict:
    """`arg` is the preset, 'official' or 'paper'."""
    config = default.get_config(arg or 'official')
    config.dataset.name = 'magnetic_tile'
    return config
