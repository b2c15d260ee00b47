"""Whether the settings of the synthesis make any anomaly at all; without one a training would be in vain."""

from typing import Any

import tensorflow as tf

from data.banks import Bank, failure
from data.synthesis.example import make_example
from draem_jax.errors import UserError

ATTEMPTS = 64


def check_anomalies(images: Bank, textures: Bank | str, *, seed: int, **options: Any) -> None:
    """Makes training examples until one carries an anomaly; usually that is one of the first two.

    Every one of them gets an anomaly, whatever its probability; what is in question is whether it can be seen.

    Args:
        images, textures, seed, **options: as for `pipeline.training_batches`.

    Raises:
        UserError: the probability of an anomaly is 0, none of `ATTEMPTS` examples carries one, or a file cannot be
            read.
    """
    if options['anomaly_probability'] == 0:
        raise UserError(
            '--config.synthesis.anomaly_probability=0.0: no example would carry an anomaly, so there would be nothing '
            'to learn. Expected a probability above 0.'
        )
    always = options | {'anomaly_probability': 1.0}
    for position in range(ATTEMPTS):
        try:
            with tf.device('cpu'):
                example = make_example(images, textures, seed, tf.constant(position, tf.int64), **always)
        except tf.errors.OpError:
            for bank in (images, textures):  # As in `pipeline`: the error of the file, not TensorFlow's.
                if (error := failure(bank)) is not None:
                    raise error from None
            raise
        if example['mask'].numpy().any():
            return
    shown = {name: options[name] for name in ('foreground_threshold', 'label_correction', 'mask_threshold')}
    settings = ', '.join(f'--config.synthesis.{name}={value}' for name, value in shown.items())
    raise UserError(
        f'None of {ATTEMPTS} training examples carries an anomaly, so there would be nothing to learn. Too high may be '
        f'one of {settings}. tools/preview.py with the same flags shows what they make.'
    )
