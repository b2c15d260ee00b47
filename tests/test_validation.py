"""The look at fixed examples against scikit-learn."""

import numpy as np
from sklearn import metrics

from draem_jax.evaluation import validation

RANDOM = np.random.default_rng(0)


def test_scores_are_those_of_scikit_learn_on_images_and_pixels():
    masks = RANDOM.integers(0, 2, (6, 8, 8, 1), np.uint8)
    masks[:3] = 0
    outputs = {'score': RANDOM.uniform(size=6), 'map': RANDOM.uniform(size=(6, 8, 8)).astype(np.float32)}
    scores = validation.scores(outputs, masks)
    labels = [0, 0, 0, 1, 1, 1]
    np.testing.assert_allclose(scores['validation/image_auroc'], metrics.roc_auc_score(labels, outputs['score']))
    pixels = masks.ravel(), outputs['map'].ravel()
    np.testing.assert_allclose(scores['validation/pixel_auroc'], metrics.roc_auc_score(*pixels))
    np.testing.assert_allclose(scores['validation/pixel_ap'], metrics.average_precision_score(*pixels))


def test_scores_leave_out_what_has_no_value():
    outputs = {'score': RANDOM.uniform(size=2), 'map': RANDOM.uniform(size=(2, 8, 8))}
    assert validation.scores(outputs, np.zeros((2, 8, 8, 1), np.uint8)) == {}


def test_a_sheet_has_as_many_rows_as_there_are_examples():
    examples = {name: np.zeros((2, 8, 8, 3), np.uint8) for name in ('image', 'augmented')}
    examples['mask'] = np.zeros((2, 8, 8, 1), np.uint8)
    outputs = {'reconstruction': examples['image'], 'map': np.zeros((2, 8, 8), np.float32)}
    two, one, six = (validation.sheet(examples, outputs, rows) for rows in (2, 1, 6))
    assert one.shape[0] < two.shape[0]
    np.testing.assert_array_equal(two, six)
