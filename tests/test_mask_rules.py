"""An evaluation by the rule 'half' holds what one by the authors' rule 'full' says of pixels, from masks to files."""

import json

import numpy as np
import pytest

from draem_jax import run_directory
from draem_jax.evaluation.evaluate import write_evaluation

SIZE = 32


def make_batch():
    """Two normal images and four defective ones whose masks have soft rims; the last two masks are nothing but rim."""
    mask = np.zeros((8, SIZE, SIZE, 1), np.uint8)  # The last two are filler.
    mask[2:4, 4:14, 4:14] = 200
    mask[2:4, 6:12, 6:12] = 255
    mask[4, 20:22, 20:22] = 140
    mask[5, 20:22, 20:22] = 90
    return {
        'image': np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8),
        'mask': mask,
        'label': [0, 0, 1, 1, 1, 1],
        'defect_type': ['good', 'good', 'hole', 'hole', 'dot', 'dot'],
        'filename': [f'{index}.png' for index in range(6)],
        'has_mask': [True] * 6,
    }


def predict(variables, batch):
    """Stands for a mapped function: the map is the red channel."""
    red = batch[..., 0].astype(np.float32) / 255
    return {'reconstruction': batch, 'map': red, 'score': red.mean((-1, -2))}


def evaluate(workdir, rule):
    about = {
        'step': 5,
        'dataset': {'name': 'folder', 'category': '', 'image_size': [SIZE, SIZE], 'note': None},
        'options': {'mask_rule': rule, 'aupro_max_fpr': 0.3, 'score_window': 5},
    }
    folder = run_directory.evaluation_folder(workdir, 5)
    write_evaluation(workdir, folder, about, predict, None, [make_batch()], mask_rule=rule, sheet_rows=0)
    return json.loads((folder / 'results.json').read_text())


def test_the_numbers_of_the_rule_full_stand_beside_those_of_half(tmp_path):
    half, full = (evaluate(tmp_path / rule, rule) for rule in ('half', 'full'))
    for name, value in half['metrics_full_mask'].items():
        assert value == pytest.approx(full['metrics'][name], abs=1e-12)
        assert value != pytest.approx(half['metrics'][name], abs=1e-4)
    assert half['masks'] == {'count': 4, 'empty': 1, 'empty_full_mask': 2}
    assert full['masks'] == {'count': 4, 'empty': 2, 'empty_full_mask': 2}
    page = run_directory.evaluation_folder(tmp_path / 'half', 5) / 'report' / 'index.html'
    assert '1 (2 by the rule full) of 4 masks of defective images have no defective pixel' in page.read_text()
