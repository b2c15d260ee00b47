"""Results and rows for tests of the report, and names of files that try to be more than text."""

import numpy as np

from draem_jax.evaluation import summary

HOSTILE = [
    '"><script>alert(1)</script>.png',
    "'onerror='alert(1)",
    '</script><script>alert(2)</script>',
    '<!--<script>',
    '{{ 7 * 7 }}',
    'größe/检查/الصورة.png',
    'line\nbreak\u2028.png',
    'broken\udcff.png',
    '&amp;',
    '',
]


def make_rows(count=40, seed=0):
    """What `predict_split` returns: every second image is defective."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        label = index % 2
        # One digit fewer than usual, so that some scores tie.
        score = round(float(np.clip(generator.normal(0.3 + 0.3 * label, 0.2), 0, 1)), 2)
        kind = ('scratch', 'dent')[index % 4 // 2] if label else 'good'
        rows.append({'filename': f'{index}.png', 'defect_type': kind, 'label': label, 'score': score, 'has_mask': True})
    return rows


def make_results(rows):
    """What results.json holds for the rows, without masks."""
    numbers = summary.summarise(*([row[key] for row in rows] for key in ('score', 'label', 'defect_type')))
    about = {
        'step': 30,
        'dataset': {'name': 'folder', 'category': '', 'split': 'test', 'image_size': [32, 32], 'note': None},
        'options': {'aupro_max_fpr': 0.3, 'score_window': 5, 'mask_rule': 'half'},
    }
    return {**about, **numbers, 'versions': {'numpy': np.__version__}}
