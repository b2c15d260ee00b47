"""Kills a training again and again, at random moments, and compares its end with that of an undisturbed one.

    python -m benchmarks.kill_test
    python -m benchmarks.kill_test --kills=5 --out=kill_test.json
    python -m benchmarks.kill_test --kills=3 --signal=SIGTERM

Runs train.py, in processes of its own, on a tiny drawn data set with a checkpoint every few steps. Each kill is a
SIGKILL. Three of four come at a random moment of the training, when saves are under way most of the time, the others
while the process starts. With SIGTERM all come during the training, which has to save and leave with 42. Every restart
must go on from the newest checkpoint on disk. The last one must end with the same bits in parameters, batch statistics
and optimizer state, and with one log line for each step. The exit code is 1 if any of this fails.
"""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = {
    'dataset.image_size': '(32, 32)',
    'model.reconstructive_width': 1,
    'model.discriminative_width': 1,
    'training.batch_size': 4,
    'training.log_every_steps': 1,
    'training.validate_every_steps': 0,
    'training.picture_every_steps': 0,
    'training.checkpoint_every_steps': 3,
}


class Training:
    """train.py in a process of its own; `lines` holds what it has printed so far."""

    def __init__(self, workdir, root, steps):
        flags = {**CONFIG, 'dataset.root': root, 'training.steps': steps}
        self._process = subprocess.Popen(
            [sys.executable, 'train.py', '--config=configs/quickstart.py', f'--workdir={workdir}']
            + [f'--config.{field}={value}' for field, value in flags.items()],
            cwd=ROOT,
            env={**os.environ, 'PYTHONUNBUFFERED': '1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self._process.stdout))
        self._reader.start()

    def wait_for_training(self):
        """Returns when the first step is done or the process has ended."""
        while self.exit_code() is None and not any(line.startswith('First step') for line in list(self.lines)):
            time.sleep(0.02)

    def exit_code(self):
        """None while it runs."""
        return self._process.poll()

    def end(self, number=None):
        """Sends a signal, if one is given, waits for the end and returns the exit code."""
        if number is not None:
            self._process.send_signal(number)
        self._process.wait()
        self._reader.join()
        return self._process.returncode

    def first_step(self):
        """The step from which it said it goes on: 0 for a fresh start, None if it ended before it said so."""
        for line in self.lines:
            if match := re.match(r'Going on from step (\d+)', line):
                return int(match[1])
        return 0 if any(line.startswith('First step') for line in self.lines) else None


def steps_on_disk(workdir):
    """(newest complete checkpoint or 0, whether a save was cut short)."""
    names = os.listdir(workdir / 'checkpoints') if (workdir / 'checkpoints').is_dir() else []
    return max([int(name) for name in names if name.isdecimal()], default=0), any('tmp' in name for name in names)


def arrays(workdir, step):
    """All arrays of a checkpoint, read by Orbax alone: {path: (dtype, shape, bytes)}."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    leaves = {}
    for item in ('variables', 'progress'):
        tree = ocp.PyTreeCheckpointer().restore(workdir.resolve() / 'checkpoints' / str(step) / item)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            leaf = np.asarray(leaf)
            leaves[item + jax.tree_util.keystr(path)] = (leaf.dtype.name, leaf.shape, leaf.tobytes())
    return leaves


def logged(workdir):
    """(step, loss) of each log line."""
    lines = (json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines())
    return [(line['step'], line['loss']) for line in lines if 'loss' in line]


def measure(folder, kills, steps, seconds, seed, number):
    """Runs the undisturbed training and the killed one, with signal `number`; returns a dict of plain values."""
    expected_code = 42 if number == signal.SIGTERM else -number
    draw = random.Random(seed)
    whole, killed, root = folder / 'whole', folder / 'killed', folder / 'data'
    start = time.monotonic()
    training = Training(whole, root, steps)
    training.wait_for_training()
    starting_seconds = time.monotonic() - start
    if training.end() != 0:
        raise SystemExit(''.join(training.lines))
    rows, expected_step = [], 0
    while len(rows) < kills:
        training = Training(killed, root, steps)
        in_training = number == signal.SIGTERM or len(rows) % 4 != 3
        if in_training:
            training.wait_for_training()
        delay = draw.uniform(0, seconds if in_training else starting_seconds)
        time.sleep(delay)
        code = training.end(number)
        first_step, (newest, cut_short) = training.first_step(), steps_on_disk(killed)
        rows.append(
            {
                'kill': len(rows) + 1,
                'moment': 'training' if in_training else 'start',
                'delay_seconds': round(delay, 2),
                'exit_code': code,
                'went_on_from': first_step,
                'expected': expected_step,
                'newest': newest,
                'save_cut_short': cut_short,
                'complaints': [line.strip() for line in training.lines if 'damaged' in line or 'Error' in line],
            }
        )
        row = rows[-1]
        print(
            f'{row["kill"]:4}  {row["moment"]:8}  {delay:6.2f} s  from {first_step!s:>5}  newest {newest:5}  '
            f'{"save cut short" if cut_short else ""}',
            flush=True,
        )
        expected_step = newest
        if code != expected_code:
            break  # It ended before its kill.
    training = Training(killed, root, steps)
    code = training.end()
    expected, actual = arrays(whole, steps), arrays(killed, steps)
    return {
        'steps': steps,
        'kills': sum(row['exit_code'] == expected_code for row in rows),
        'saves_cut_short': sum(row['save_cut_short'] for row in rows),
        'wrong_restarts': sum(
            row['went_on_from'] not in (None, row['expected']) or bool(row['complaints']) for row in rows
        )
        + (training.first_step() not in (None, expected_step)),
        'last_exit_code': code,
        'arrays': len(expected),
        'arrays_that_differ': sum(expected[path] != actual.get(path) for path in expected)
        + len(actual.keys() - expected.keys()),
        'log_lines_wrong': logged(killed) != logged(whole)
        or [step for step, _ in logged(killed)] != [*range(1, steps + 1)],
        'rows': rows,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--seconds', type=float, default=2.0, help='of training before a kill, at most')
    parser.add_argument('--signal', choices=('SIGKILL', 'SIGTERM'), default='SIGKILL')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', help='JSON file')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        number = signal.Signals[options.signal]
        results = measure(pathlib.Path(folder), options.kills, options.steps, options.seconds, options.seed, number)
    for name, value in results.items():
        if name != 'rows':
            print(f'{name.replace("_", " "):22} {value}')
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(results, indent=2) + '\n')
    sys.exit(
        bool(
            results['wrong_restarts']
            or results['last_exit_code']
            or results['arrays_that_differ']
            or results['log_lines_wrong']
        )
    )


if __name__ == '__main__':
    main()
