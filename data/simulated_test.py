"""A test set for a folder of good images alone: some of them held out, and anomalies simulated on them.

It tells whether a training went well. How well real defects are found it does not tell, for its anomalies are made as
those of the training are.
"""

import numpy as np

from data import pipeline
from data.in_place import NORMAL
from draem_jax.errors import UserError

DEFECT_TYPE = 'simulated'
NOTE = (
    'There are no test images: measured on held-out normal images and on anomalies simulated on them, which tells '
    'whether training went well, not how well real defects are found.'
)

_SEED = 2**31 - 3  # No training has it, and no validation.
_MIN_ANOMALIES = 64


def make(loaded, **synthesis):
    """The examples of the test, as `reading.read_split` yields those of a test split.

    Args:
        loaded: `inputs.Inputs`, with `test` images.
        **synthesis: options of `data.synthesis.make_example`; images are neither left clean nor rotated here.

    Returns:
        List of dicts: every held-out image once, as it is, and as many (at least 64) with an anomaly.
    """
    (names,) = loaded.held_out_names.values()
    normals = [
        _example(loaded.test[index], np.zeros((*loaded.test.shape[1:3], 1), np.uint8), 0, NORMAL, name)
        for index, name in enumerate(names['test'])
    ]
    count = max(_MIN_ANOMALIES, len(normals))
    always = {'anomaly_probability': 1.0, 'rotation_probability': 0.0}
    # A few masks come out empty.
    made = pipeline.examples(
        loaded.test, loaded.textures, seed=_SEED, positions=range(2 * count), **(synthesis | always)
    )
    visible = made['mask'].any(axis=(1, 2, 3)).nonzero()[0][:count]
    if not len(visible):
        raise UserError(
            'No anomaly simulated for the test can be seen: tools/preview.py shows what config.synthesis makes.'
        )
    anomalous = [
        _example(made['augmented'][k], 255 * made['mask'][k], 1, DEFECT_TYPE, f'{DEFECT_TYPE}/{k:04}.png')
        for k in visible
    ]
    return normals + anomalous


def _example(image, mask, label, defect_type, filename):
    return {
        'image': image,
        'mask': mask,
        'label': label,
        'defect_type': defect_type,
        'filename': filename,
        'has_mask': True,
    }
