"""How many training examples a core makes a second, and where the milliseconds go.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --sizes=256 --cores=1 --out=input_pipeline.json

The preset is `official`, the batch size 8. Images and textures are random pixels in memory, which cost as much as real
ones. Each figure comes from a process of its own, which is pinned to the given number of cores and makes as many
examples at a time. A part's cost is the difference between runs with and without it, all on one core, so the parts add
up. Examples/s are the median over --repeats, with the least and the most; a first run is not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BATCH_SIZE = 8
# Each run adds one part to the one before it. Part: options of data.synthesis.example.make_example, or textures.
_CLEAN = {'anomaly_probability': 0.0, 'rotation_probability': 0.0}
_TINY_MASKS = {'mask_threshold': (1.0, 1.0)}
PARTS = {
    'drawing an image, batching': _CLEAN,
    'rotating 3 in 10 images': {'anomaly_probability': 0.0},
    'masks for half of them': {'textures': 'colour', **_TINY_MASKS},
    'blending': {'textures': 'colour'},
    'taking a texture': {'operation_count': 0},
    'three operations': {},
}


def measure(size, seconds, repeats, options):
    """Examples/s of `repeats` runs of `seconds` each, in this process and on the cores it may use."""
    import numpy as np

    from data import pipeline

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (320, size, size, 3), np.uint8)
    textures = options.pop('textures', None) or rng.integers(0, 256, (512, size, size, 3), np.uint8)
    batches = pipeline.training_batches(images, textures, seed=0, batch_size=BATCH_SIZE, **options)
    rates = []
    for _ in range(repeats + 1):
        count, start = 0, time.perf_counter()
        while time.perf_counter() < start + seconds:
            next(batches)
            count += BATCH_SIZE
        rates.append(count / (time.perf_counter() - start))
    return rates[1:]


def measure_apart(size, cores, seconds, repeats, options):
    """`measure` in a process of its own, on the first `cores` of the cores that this one may use."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    code = (
        f'import json, os; os.sched_setaffinity(0, {allowed})\n'
        'from benchmarks.input_pipeline import measure\n'
        f'print(json.dumps(measure({size}, {seconds}, {repeats}, {options!r})))'
    )
    environment = os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3', 'TF_ENABLE_ONEDNN_OPTS': '0'}
    done = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    available = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', default='64,128,256', help='heights and widths in pixels')
    parser.add_argument('--cores', default=','.join(map(str, sorted({1, available}))), help='numbers of cores')
    parser.add_argument('--split_size', type=int, default=256, help='size whose parts are taken apart; 0 for none')
    parser.add_argument('--seconds', type=float, default=3.0, help='length of one run')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--out', help='a JSON file for the figures')
    flags = parser.parse_args()

    rows = []
    print(f'{"size":>5}{"cores":>7}{"examples/s":>13}{"least":>9}{"most":>9}')
    for size in map(int, flags.sizes.split(',')):
        for cores in map(int, flags.cores.split(',')):
            rates = measure_apart(size, cores, flags.seconds, flags.repeats, {})
            row = {'size': size, 'cores': cores, 'median': statistics.median(rates), 'runs': rates}
            rows.append(row)
            print(f'{size:5}{cores:7}{row["median"]:13.0f}{min(rates):9.0f}{max(rates):9.0f}', flush=True)
    parts = []
    if flags.split_size:
        print(f'\nms an example at {flags.split_size} px on one core')
        before = 0.0
        for name, options in PARTS.items():
            rates = measure_apart(flags.split_size, 1, flags.seconds, flags.repeats, options)
            total = 1000 / statistics.median(rates)
            parts.append({'part': name, 'milliseconds': total - before, 'total': total})
            print(f'{name:30}{total - before:8.2f}', flush=True)
            before = total
        print(f'{"together":30}{before:8.2f}')
    if flags.out:
        with open(flags.out, 'w', encoding='utf-8') as file:
            json.dump({'rows': rows, 'split_size': flags.split_size, 'parts': parts}, file, indent=2)


if __name__ == '__main__':
    main()
