"""What an evaluation costs the host beside the networks: seconds per test image, and peak memory over their number.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --images=600,6000 --out=evaluation.json

All that evaluate.py does with predictions is measured; the predictions themselves are drawn. `metrics` writes results
and scores; `all` also writes the picture of every image, the sheets and the report. Each row is a process of its own;
`idle` is its memory before the first image. Seconds are processor time, of all threads together.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import pathlib
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from draem_jax import run_directory
from draem_jax.evaluation.evaluate import write_evaluation

_DRAWN = 48  # different images; more of them would only take memory of their own
_BATCH_SIZE = 16


def draw_examples(size: int) -> dict[str, np.ndarray]:
    """Textured images with smooth reconstructions, maps and masks: arrays over `_DRAWN` images."""
    generator = np.random.default_rng(0)
    examples: dict[str, list[np.ndarray]] = {'image': [], 'reconstruction': [], 'map': [], 'mask': []}
    for index in range(_DRAWN):
        coarse, fine = (generator.normal(0, spread, (side, side, 3)) for side, spread in ((16, 40), (size, 12)))
        image = np.clip(128 + cv2.resize(coarse, (size, size)) + fine, 0, 255).astype(np.uint8)
        mask = np.zeros((size, size), np.uint8)
        if index % 2:
            center = generator.integers(size // 4, 3 * size // 4, 2).tolist()
            cv2.circle(mask, center, int(generator.integers(size // 16, size // 6)), 255, -1)
        logits = generator.normal(-6, 1.5, (size, size)) + 8 * cv2.GaussianBlur(mask / 255, (0, 0), size / 64)
        examples['image'].append(image)
        examples['reconstruction'].append(cv2.GaussianBlur(image, (0, 0), 1.5))
        examples['map'].append((1 / (1 + np.exp(-cv2.GaussianBlur(logits, (0, 0), 1)))).astype(np.float32))
        examples['mask'].append(mask[..., None])
    return {name: np.stack(values) for name, values in examples.items()}


def batches(examples: dict[str, np.ndarray], count: int) -> Iterator[dict[str, Any]]:
    """Batches as the reader yields them, with what `predict` is to return for them under 'outputs'."""
    for first in range(0, count, _BATCH_SIZE):
        indices = np.arange(first, min(first + _BATCH_SIZE, count))
        drawn = indices % _DRAWN
        maps = examples['map'][drawn] * (1 - 1e-6 * indices[:, None, None]).astype(np.float32)
        yield {
            'image': examples['image'][drawn],
            'mask': examples['mask'][drawn],
            'label': [int(index % 2) for index in indices],
            'defect_type': ['spot' if index % 2 else 'good' for index in indices],
            'filename': [f'test/{index:05}.png' for index in indices],
            'has_mask': [True] * len(indices),
            'outputs': {
                'reconstruction': examples['reconstruction'][drawn],
                'map': maps,
                'score': maps.max(axis=(1, 2)),
            },
        }


def measure(count: int, size: int, with_pictures: bool) -> dict[str, Any]:
    """What one evaluation of `count` images costs."""
    examples = draw_examples(size)
    about: dict[str, Any] = {
        'step': 1,
        'dataset': {'name': 'drawn', 'category': '', 'image_size': [size, size], 'note': None},
        'options': {'aupro_max_fpr': 0.3, 'score_window': 21, 'mask_rule': 'half'},
    }
    waiting: list[dict[str, np.ndarray]] = []

    def predict(variables: dict[str, Any], images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value[None] for name, value in waiting.pop().items()}

    def batches_to_predict() -> Iterator[dict[str, Any]]:
        for batch in batches(examples, count):
            waiting.append(batch.pop('outputs'))
            yield batch

    start = time.process_time()
    for _ in batches(examples, count):
        pass
    drawing = time.process_time() - start
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as workdir:
        start = time.process_time()
        write_evaluation(
            workdir,
            run_directory.evaluation_folder(workdir, about['step']),
            about,
            predict,
            {},
            batches_to_predict(),
            sheet_rows=8 * with_pictures,
            has_report=with_pictures,
        )
        seconds = time.process_time() - start - drawing
        folder = run_directory.evaluation_folder(workdir, 1)
        written = sum(path.stat().st_size for path in pathlib.Path(folder).rglob('*') if path.is_file())
    return {
        'images': count,
        'work': 'all' if with_pictures else 'metrics',
        'ms_per_image': 1e3 * seconds / count,
        'idle_mb': idle / 1e3,
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        'written_kb_per_image': written / 1e3 / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', default='600,6000', help='numbers of test images')
    parser.add_argument('--size', type=int, default=256, help='height and width in pixels')
    parser.add_argument('--out', help='a JSON file for the figures')
    flags = parser.parse_args()

    rows = []
    print(f'{"images":>8}{"work":>10}{"ms/image":>10}{"idle MB":>10}{"peak MB":>10}{"kB/image":>10}')
    for count in map(int, flags.images.split(',')):
        for with_pictures in (False, True):
            context = multiprocessing.get_context('spawn')
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                row = pool.submit(measure, count, flags.size, with_pictures).result()
            rows.append(row)
            print(
                f'{row["images"]:8}{row["work"]:>10}{row["ms_per_image"]:10.1f}{row["idle_mb"]:10.0f}'
                f'{row["peak_mb"]:10.0f}{row["written_kb_per_image"]:10.1f}'
            )
    if flags.out:
        with open(flags.out, 'w', encoding='utf-8') as file:
            json.dump({'size': flags.size, 'rows': rows}, file, indent=2)


if __name__ == '__main__':
    main()
