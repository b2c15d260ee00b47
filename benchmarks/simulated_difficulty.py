"""How far detectors without learning get on the simulated data set: brightness alone must not win the test.

    python -m benchmarks.simulated_difficulty --category=metal --out=difficulty.json

One detector knows the mean and the deviation of every pixel over the training images; its score is the distance of a
pixel from the mean, in deviations. The other is the quickstart's network with its initial weights. Prints a table and,
with --out, writes the same as JSON; the exit code is 1 if a detector exceeds `LIMITS`.
"""

import argparse
import json
import pathlib
import sys

import cv2
import jax
import numpy as np
from sklearn import metrics

from configs import quickstart
from data.sets.simulated import drawing
from draem_jax.model import networks, scoring

# Detectors below these leave room for a trained network.
LIMITS = {
    'z-score': {'image_auroc': 0.85, 'pixel_ap': 0.30},
    'untrained': {'image_auroc': 0.65},
}


def draw_split(category, split, size):
    """Returns images float32 [N, size, size, 3] in 0..1, masks bool [N, size, size], and the defect kinds, a list."""
    images, masks, names = [], [], []
    for _, kind, number in drawing.contents(category, split):
        image, mask = drawing.draw(category, number, kind=kind)
        images.append(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR))
        masks.append(cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR) > 127)
        names.append(kind or 'good')
    return np.asarray(images, np.float32) / 255, np.asarray(masks), names


def z_score_maps(train, test):
    """Distance from the training images, in their deviations, in two ways: a dictionary of float [N, H, W]."""
    grey_train, grey_test = train.mean(axis=-1, keepdims=True), test.mean(axis=-1, keepdims=True)
    return {
        'z-score, grey': _z_scores(grey_train, grey_test),
        'z-score, largest channel': _z_scores(train, test),
    }


def untrained_maps(test, seeds=3):
    """Anomaly maps of the quickstart's network before its first step, for some seeds: a dictionary."""
    model = networks.make_model(**quickstart.get_config().model)
    predict = jax.jit(scoring.make_predict(model, score_window=1))
    images = np.rint(255 * test).astype(np.uint8)
    return {
        f'untrained, seed {seed}': np.asarray(
            predict(networks.init_variables(model, images.shape[1:3], seed), images)['map']
        )
        for seed in range(seeds)
    }


def _z_scores(train, test):
    return (np.abs(test - train.mean(axis=0)) / (train.std(axis=0) + 1e-6)).max(axis=-1)


def measure(maps, masks):
    """Image AUROC under the better of two image scores, pixel AUROC and pixel AP.

    Args:
        maps: float [N, H, W], larger is more anomalous.
        masks: bool [N, H, W].
    """
    labels = masks.any(axis=(1, 2))
    width = round(21 * maps.shape[1] / 256) | 1
    blurred = np.stack([cv2.blur(each, (width, width), borderType=cv2.BORDER_CONSTANT) for each in maps])
    scores = [each.max(axis=(1, 2)) for each in (maps, blurred)]
    return {
        'image_auroc': max(metrics.roc_auc_score(labels, score) for score in scores),
        'pixel_auroc': metrics.roc_auc_score(masks.ravel(), maps.ravel()),
        'pixel_ap': metrics.average_precision_score(masks.ravel(), maps.ravel()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--category', choices=[*drawing.CATEGORIES, 'all'], default='all')
    parser.add_argument('--out', type=pathlib.Path, help='JSON file to write')
    arguments = parser.parse_args()
    categories = drawing.CATEGORIES if arguments.category == 'all' else [arguments.category]
    rows = []
    for category in categories:
        for size in (64, 128):
            train, _, _ = draw_split(category, 'train', size)
            test, masks, _ = draw_split(category, 'test', size)
            detectors = z_score_maps(train, test) | untrained_maps(test)
            for name, maps in detectors.items():
                rows.append({'category': category, 'size': size, 'detector': name, **measure(maps, masks)})
    print(f'{"category":9} {"size":>4}  {"detector":24} {"image AUROC":>11} {"pixel AUROC":>11} {"pixel AP":>8}')
    for row in rows:
        print(
            f'{row["category"]:9} {row["size"]:4}  {row["detector"]:24}'
            f' {row["image_auroc"]:11.3f} {row["pixel_auroc"]:11.3f} {row["pixel_ap"]:8.3f}'
        )
    print(f'Limits: {LIMITS}')
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + '\n')
    return int(any(row[name] > limit for row in rows for name, limit in LIMITS[row['detector'].split(',')[0]].items()))


if __name__ == '__main__':
    sys.exit(main())
