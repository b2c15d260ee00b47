"""Published results of DRAEM, to stand beside ours.

Image AUROC, pixel AUROC and pixel AP in percent, at 256 px, 700 epochs. A pixel is defective in them where the resized
mask has its full value, as in the authors' code.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021, tables 1, 2 (MVTec AD) and 3 (ablations).
"""

import re
from collections.abc import Collection

METRICS = ('image_auroc', 'pixel_auroc_full_mask', 'pixel_ap_full_mask')

_MVTEC_AD = {
    'bottle': (99.2, 99.1, 86.5),
    'cable': (91.8, 94.7, 52.4),
    'capsule': (98.5, 94.3, 49.4),
    'carpet': (97.0, 95.5, 53.5),
    'grid': (99.9, 99.7, 65.7),
    'hazelnut': (100.0, 99.7, 92.9),
    'leather': (100.0, 98.6, 75.3),
    'metal_nut': (98.7, 99.5, 96.3),
    'pill': (98.9, 97.6, 48.5),
    'screw': (93.9, 97.6, 58.2),
    'tile': (99.6, 99.2, 92.3),
    'toothbrush': (100.0, 98.1, 44.7),
    'transistor': (93.1, 90.9, 50.7),
    'wood': (99.1, 96.4, 77.7),
    'zipper': (100.0, 98.8, 81.5),
}

# Means over the fifteen categories, by the names that configs/ablations.py gives to the rows.
TABLE_3 = {
    'discriminative_only': (93.9, 92.7, 62.5),
    'reconstruction_ssim': (83.9, 89.7, 47.5),
    'reconstruction_msgms': (90.7, 93.4, 50.9),
    'colours': (96.2, 92.6, 56.5),
    'rectangles': (96.9, 96.8, 65.1),
    'plain': (97.4, 94.5, 64.3),
    'augmentation': (97.4, 95.0, 64.5),
    'opacity': (97.9, 97.1, 68.4),
    'imagenet': (97.9, 97.0, 67.9),
    'full': (98.0, 97.3, 68.4),
}
# The name of a config of a sweep (commands/sweep_configs.py) that is a row of it: its category and preset may follow.
_ROW = re.compile(rf'ablations_({"|".join(TABLE_3)})(_({"|".join(_MVTEC_AD)}))?(_official|_paper)?')


def results_of(dataset: str, category: str, config: str = '') -> dict[str, float]:
    """{metric: value in [0, 1]} that the paper prints for a category; empty where it prints none.

    Args:
        dataset: name of the data set.
        category: its category.
        config: name of the config in a sweep over several. The paper prints categories of the full method alone.
    """
    is_printed = dataset == 'mvtec_ad' and (not config or _row_of(config) == 'full')
    return _by_metric(_MVTEC_AD.get(category, ()) if is_printed else ())


def mean_results_of(dataset: str, categories: Collection[str], config: str) -> dict[str, float]:
    """{metric: value in [0, 1]} that the paper's Table 3 prints for a config; empty unless these are all categories."""
    is_printed = dataset == 'mvtec_ad' and set(categories) == set(_MVTEC_AD)
    return _by_metric(TABLE_3.get(_row_of(config), ()) if is_printed else ())


def _row_of(config: str) -> str:
    match = _ROW.fullmatch(config)
    return match[1] if match else ''


def _by_metric(values: Collection[float]) -> dict[str, float]:
    return {name: value / 100 for name, value in zip(METRICS, values, strict=False)}
