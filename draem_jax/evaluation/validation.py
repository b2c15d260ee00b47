"""A look at a network in training: how well it finds fixed simulated anomalies, and a picture of some."""

from collections.abc import Callable, Mapping

import numpy as np

from draem_jax import devices, pictures
from draem_jax.evaluation import metrics
from draem_jax.model.networks import Variables

COLUMNS = ('normal', 'augmented', 'reconstruction', 'mask', 'prediction')


def predict_all(predict: Callable, variables: Variables, images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """Predictions on all images, batch by batch over all devices.

    Args:
        predict: from `scoring.make_predict`, mapped by `devices.parallel_predict`.
        variables: of the model.
        images: uint8 [N, H, W, 3], N a multiple of `batch_size`.
        batch_size: a multiple of the devices.

    Returns:
        Arrays over all N images, as `predict` names them.
    """
    parts = [
        devices.predict_batch(predict, variables, images[k : k + batch_size]) for k in range(0, len(images), batch_size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def scores(outputs: Mapping[str, np.ndarray], masks: np.ndarray) -> dict[str, float]:
    """Metrics on simulated anomalies, which say whether training goes well, not how well real defects are found.

    Args:
        outputs: from `predict_all`.
        masks: [N, H, W, 1] in {0, 1}.

    Returns:
        {name: number}, without those that have no value, such as where all masks are empty.
    """
    values = {}
    for level, score, label in (
        ('image', outputs['score'], masks.any(axis=(1, 2, 3))),
        ('pixel', outputs['map'].ravel(), masks.ravel()),
    ):
        try:
            summary = metrics.summary(score, label)
        except metrics.UndefinedMetric:
            continue
        values[f'validation/{level}_auroc'] = summary['auroc']
        values[f'validation/{level}_ap'] = summary['average_precision']
    return values


def sheet(examples: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """A contact sheet, uint8 RGB, of at most `rows` examples from the first on, with their predictions."""
    pictured = [
        (
            '',
            (
                examples['image'][k],
                examples['augmented'][k],
                outputs['reconstruction'][k],
                255 * examples['mask'][k, ..., 0],
                pictures.heat(outputs['map'][k]),
            ),
        )
        for k in range(min(rows, len(examples['image'])))
    ]
    return pictures.sheet(pictured, COLUMNS)
