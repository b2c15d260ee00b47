"""Seconds of a start: from a command to the first training step, and to the prediction of one image.

    python -m benchmarks.start_up
    python -m benchmarks.start_up --cores=1 --repeats=3 --out=start_up.json

`train` is train.py with the quickstart's config, until it says that the first step is done; the data set was drawn
before. `predict` is predict.py, from start to end, on one photograph of 2000 x 1500 pixels with networks of full
size. Cold: the folder of compiled programs is empty; warm: another process has filled it. Every run is a new process;
the kinds of runs take turns, and medians count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FIRST_STEP = 'First step after'


def write_run(workdir):
    """A run directory as training leaves it: full-size networks at 256 px with random weights."""
    from configs import default
    from draem_jax import checkpoints, run_directory
    from draem_jax.model import networks
    from draem_jax.training.optimizer import make_optimizer, make_schedule
    from draem_jax.training.state import init_state, save_state

    config = default.get_config()
    run_directory.start(workdir, config.to_dict())
    variables = networks.init_variables(networks.make_model(**config.model), config.dataset.image_size, seed=0)
    optimizer = make_optimizer(make_schedule(1, **config.optimizer))
    with checkpoints.open_checkpoints(workdir) as manager:
        save_state(manager, init_state(variables, optimizer))


def write_photo(path):
    import numpy as np

    from draem_jax import images

    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (75, 100, 3)).repeat(20, 0).repeat(20, 1)
    images.write_png(path, (coarse + random.integers(0, 50, coarse.shape)).astype(np.uint8))


def in_another_process(name, *arguments):
    """Calls a function of this file in another process, so that this one stays as light as a shell."""
    code = f'from benchmarks import start_up; start_up.{name}(*{arguments!r})'
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, env=os.environ | quiet())


def quiet():
    return {'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONUNBUFFERED': '1'}


def seconds_to_first_step(cache, data, overrides=()):
    """Starts train.py, waits for its first step, and ends it."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, 'train.py', '--config=configs/quickstart.py', f'--workdir={workdir}/run']
        command += [f'--config.dataset.root={data}', *overrides]
        start = time.perf_counter()
        environment = os.environ | quiet() | {'JAX_COMPILATION_CACHE_DIR': cache}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith(FIRST_STEP):
                    seconds = time.perf_counter() - start
                    process.kill()
                    return seconds
    raise SystemExit(f'Error: train.py ended before its first step: {"".join(said[-3:])}')


def seconds_to_predict(cache, run, photo):
    """Runs predict.py on one image; raises SystemExit if it fails or imports TensorFlow."""
    code = (
        'import runpy, sys\n'
        'try:\n'
        "    runpy.run_path('predict.py', run_name='__main__')\n"
        'finally:\n'
        "    print('tensorflow' in sys.modules)\n"
    )
    with tempfile.TemporaryDirectory() as out:
        arguments = [f'--workdir={run}', f'--out={out}', photo]
        environment = os.environ | quiet() | {'JAX_COMPILATION_CACHE_DIR': cache}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, '-c', code, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
    if done.returncode or done.stdout.split()[-1] != 'False':
        raise SystemExit(
            f'Error: predict.py failed, or has imported TensorFlow: {done.stdout[-300:]}{done.stderr[-300:]}'
        )
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cores', type=int, default=0, help='pin to this many; 0: do not pin')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--only', choices=('train', 'predict'), help='one of the two')
    parser.add_argument('--out', help='a JSON file for the figures')
    flags = parser.parse_args()
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])

    with tempfile.TemporaryDirectory() as folder:
        warm = {name: os.path.join(folder, f'warm_{name}') for name in ('train', 'predict')}
        data, run, photo = (os.path.join(folder, name) for name in ('data', 'run', 'photo.png'))
        starts = {
            'train': lambda cache: seconds_to_first_step(cache, data),
            'predict': lambda cache: seconds_to_predict(cache, run, photo),
        }
        if flags.only:
            starts = {flags.only: starts[flags.only]}
        rows = {}
        if 'train' in starts:
            rows['train, data set drawn as well'] = [starts['train'](warm['train'])]
        if 'predict' in starts:
            in_another_process('write_run', run)
            in_another_process('write_photo', photo)
            starts['predict'](warm['predict'])
        for _ in range(flags.repeats):
            for name, start in starts.items():
                with tempfile.TemporaryDirectory() as empty:
                    rows.setdefault(f'{name}, cold', []).append(start(empty))
                rows.setdefault(f'{name}, warm', []).append(start(warm[name]))

    print(f'{"seconds, on " + str(len(os.sched_getaffinity(0))) + " cores":40}{"median":>9}{"least":>9}{"most":>9}')
    for name, seconds in rows.items():
        print(f'{name:40}{statistics.median(seconds):9.1f}{min(seconds):9.1f}{max(seconds):9.1f}')
    if flags.out:
        with open(flags.out, 'w', encoding='utf-8') as file:
            json.dump({'cores': len(os.sched_getaffinity(0)), 'seconds': rows}, file, indent=2)


if __name__ == '__main__':
    main()
