"""Pixel metrics against scikit-learn: seconds of processor time and peak memory beyond the inputs.

    python -m benchmarks.metrics
    python -m benchmarks.metrics --images=6000 --skip_sklearn --out=metrics.json

Scores imitate anomaly maps: most are near zero, defects are higher, many pixels share a value. Memory is what NumPy
allocates (tracemalloc), measured apart from the time. `spooled` is `PixelRanking`, whose memory does not grow with
the number of images; the others hold all scores at once and are left out above --in_memory_images.
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from draem_jax.evaluation import metrics, pixel_ranking


def draw_image(index: int, size: int, defective: bool) -> tuple[np.ndarray, np.ndarray]:
    """One float32 map and its uint8 mask, the same at every call."""
    generator = np.random.default_rng(index)
    logits = generator.normal(-6, 2.5, (size, size)).astype(np.float32)
    mask = np.zeros((size, size), np.uint8)
    if defective:
        for _ in range(generator.integers(1, 4)):
            height, width = generator.integers(size // 16, size // 5, 2)
            top, left = generator.integers(0, size - height), generator.integers(0, size - width)
            mask[top : top + height, left : left + width] = 1
        logits += generator.normal(6, 2, logits.shape).astype(np.float32) * mask
    scores = 1 / (1 + np.exp(-logits))
    return np.where(logits < -8, np.float32(0), scores), mask


def with_sklearn(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    return {
        'auroc': sklearn_metrics.roc_auc_score(labels, scores),
        'average_precision': sklearn_metrics.average_precision_score(labels, scores),
        'f1_max': float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))),
    }


def spooled(images: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]], max_fpr: float) -> dict[str, float]:
    with pixel_ranking.PixelRanking() as pixels:
        for anomaly_map, mask in images():
            pixels.add(anomaly_map, mask)
        result = pixels.summaries({'all': ['']}, max_fpr=max_fpr)['all']
    if isinstance(result, metrics.UndefinedMetric):
        raise result
    return result


def measure(function: Callable[[], dict[str, float]], repeats: int) -> dict[str, Any]:
    """The result, the least processor time in seconds, and the peak memory in MB."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {'seconds': min(seconds), 'peak_mb': peak / 1e6, 'result': result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=100, help='test images; 100 of 256 px are 6.55 million pixels')
    parser.add_argument('--size', type=int, default=256, help='height and width in pixels')
    parser.add_argument('--defective', type=float, default=0.7, help='share of the images with defects')
    parser.add_argument('--repeats', type=int, default=3, help='timings, of which the least counts')
    parser.add_argument('--in_memory_images', type=int, default=1000, help='above this, only `spooled` is measured')
    parser.add_argument('--skip_sklearn', action='store_true')
    parser.add_argument('--out', help='a JSON file for the figures')
    flags = parser.parse_args()

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (draw_image(index, flags.size, index >= (1 - flags.defective) * flags.images) for index in indices)

    indices = range(flags.images)
    rows = {}
    if flags.images <= flags.in_memory_images:
        maps = np.empty((flags.images, flags.size, flags.size), np.float32)
        masks = np.empty(maps.shape, np.uint8)
        for index, pair in enumerate(images()):
            maps[index], masks[index] = pair
        if not flags.skip_sklearn:
            scores, labels = maps.reshape(-1), masks.reshape(-1)
            rows['scikit-learn'] = measure(lambda: with_sklearn(scores, labels), flags.repeats)
        rows['summary'] = measure(lambda: metrics.summary(maps, masks), flags.repeats)
        rows['aupro'] = measure(lambda: {'aupro': metrics.aupro(maps, masks)}, flags.repeats)
        rows['spooled'] = measure(lambda: spooled(lambda: zip(maps, masks, strict=True), 0.3), flags.repeats)
    else:
        rows['drawing'] = measure(lambda: {'sum': sum(float(image.sum()) for image, _ in images())}, 1)
        rows['spooled'] = measure(lambda: spooled(images, 0.3), 1)
        rows['spooled']['seconds'] -= rows['drawing']['seconds']

    names = ['auroc', 'average_precision', 'f1_max', 'aupro']
    pixels = flags.images * flags.size**2
    print(f'{pixels:,} pixels of {flags.images} images')
    print(f'{"":14}{"seconds":>10}{"peak MB":>10}' + ''.join(f'{name:>20}' for name in names))
    for title, row in rows.items():
        values = ''.join(f'{row["result"][name]:20.15f}' if name in row['result'] else ' ' * 20 for name in names)
        print(f'{title:14}{row["seconds"]:10.3f}{row["peak_mb"]:10.1f}{values}')
    if 'scikit-learn' in rows:
        theirs, ours = rows['scikit-learn'], rows['summary']
        faster, leaner = theirs['seconds'] / ours['seconds'], theirs['peak_mb'] / ours['peak_mb']
        print(f'summary is {faster:.1f} times faster than scikit-learn and takes 1/{leaner:.1f} of its memory')
    if flags.out:
        with open(flags.out, 'w', encoding='utf-8') as file:
            json.dump({'pixels': pixels, 'images': flags.images, 'rows': rows}, file, indent=2)


if __name__ == '__main__':
    main()
