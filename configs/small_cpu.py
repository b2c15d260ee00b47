"""A folder in an hour on two CPU cores: small images, narrow networks.

    python train.py --config=configs/small_cpu.py --config.dataset.root=FOLDER \
        --config.dataset.texture_root=TEXTURES --workdir=runs/small

`authors64` after the colon is a budget at which the authors' own code was run for comparison.
"""

from configs import default


def get_config(arg=''):
    """Args: arg: '' or 'authors64'."""
    config = default.get_config()
    config.dataset.image_size = (64, 64)
    config.model.reconstructive_width = 16
    config.model.discriminative_width = 8
    config.optimizer.learning_rate = 3e-4
    config.training.steps = 5000
    config.training.validate_every_steps = 1000
    return config
