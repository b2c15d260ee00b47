"""Magnetic Tile Defects, as its authors publish it, split so that neighbouring frames stay on one side.

    python train.py --config=configs/magnetic_tile.py --config.dataset.root=MAGNETIC_TILE \
        --config.dataset.texture_root=DTD/images --workdir=runs/magnetic_tile

The root is the folder that holds `MT_Free`. There is no official split, and DRAEM's paper has no numbers. Those from
a random split are not comparable: it tests on near-duplicates of what was trained on. Size and length are those of
MVTec AD; configs/small_cpu.py is a small budget with numbers, on another split of this kind.
"""

from configs import default


def get_config(arg=''):
    """Args: arg: the preset, 'official' or 'paper'."""
    config = default.get_config(arg or 'official')
    config.dataset.name = 'magnetic_tile'
    return config
