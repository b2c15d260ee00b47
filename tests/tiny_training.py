"""A training of four steps: the data set that it takes, and its config."""

import cv2
import numpy as np

from configs import folder

STEPS = 4


def draw_data_set(root):
    """Eight good images of stripes and four with a block in them, in the layout of MVTec AD."""
    random = np.random.default_rng(0)
    stripes = np.tile((np.arange(40) % 8 * 30).astype(np.uint8), (36, 1))
    for name, count in (('train/good', 8), ('test/good', 3), ('test/block', 4), ('ground_truth/block', 4)):
        (root / name).mkdir(parents=True)
        for k in range(count):
            image = np.roll(stripes, random.integers(8), axis=1)
            if name == 'test/block':
                image[8:20, 8:20] = 255
            if name == 'ground_truth/block':
                image = np.zeros_like(image)
                image[8:20, 8:20] = 255
            suffix = '_mask' if name.startswith('ground_truth') else ''
            cv2.imwrite(str(root / name / f'{k:03}{suffix}.png'), image)


def tiny_config(root):
    """The config of a short training with narrow networks on the data set that `draw_data_set` drew."""
    config = folder.get_config()
    config.dataset.root = str(root)
    config.dataset.image_size = (32, 32)
    config.dataset.validation_fraction = 0.25
    config.dataset.texture_count = 8
    config.model.reconstructive_width = 2
    config.model.discriminative_width = 2
    config.optimizer.decay_at = ()  # Whatever its length, a run is then the same program, which is compiled once.
    config.training.batch_size = 4
    config.training.steps = STEPS
    config.training.log_every_steps = 1
    config.training.checkpoint_every_steps = 2
    config.training.validation_examples = 8
    config.evaluation.batch_size = 4
    config.evaluation.score_window = 3
    config.evaluation.sheet_rows = 2
    return config
