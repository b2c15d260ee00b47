"""How long a training waits for a checkpoint, and how long it takes until that is on disk.

    python -m benchmarks.checkpoints
    python -m benchmarks.checkpoints --folder=/mnt/slow --repeats=5 --out=checkpoints.json

The state has full size (128/64 by default) and lies on the devices, as in train.py. `wait` is the time in `save_state`,
which the training loop spends doing nothing else; `on disk` is the time from the same start until the checkpoint is
whole. Each save waits until the one before it is done, so nothing else is pending. Memory is that of the whole process,
on the host.
"""

import argparse
import json
import pathlib
import resource
import statistics
import tempfile
import time


def make_state(config):
    """A state of random networks, with zeros as moments, on the devices; compiles nothing."""
    import jax

    from draem_jax import devices
    from draem_jax.model import networks
    from draem_jax.training.optimizer import make_optimizer, make_schedule
    from draem_jax.training.state import init_state

    variables = networks.init_variables(networks.make_model(**config.model), config.dataset.image_size, seed=0)
    optimizer = make_optimizer(make_schedule(1, **config.optimizer))
    return jax.block_until_ready(devices.replicate(init_state(variables, optimizer)))


def memory_gb():
    """(now, most so far) of this process, in GB."""
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
    return pages * resource.getpagesize() / 1e9, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(folder, state, repeats):
    """Saves the state `repeats` times; returns a dict of plain values."""
    import jax
    import numpy as np

    from draem_jax import checkpoints
    from draem_jax.training.state import save_state

    results = {'gigabytes': sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9, 'wait': [], 'on_disk': []}
    results['memory_before_gb'] = memory_gb()[0]
    with checkpoints.open_checkpoints(folder, keep=1) as manager:
        for step in range(1, repeats + 1):
            state = jax.block_until_ready(state.replace(step=jax.device_put(np.int32(step), state.step.sharding)))
            start = time.perf_counter()
            save_state(manager, state)
            results['wait'].append(time.perf_counter() - start)
            manager.wait_until_finished()
            results['on_disk'].append(time.perf_counter() - start)
    results['memory_after_gb'], results['memory_peak_gb'] = memory_gb()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--widths', default='128/64', help='of the two networks')
    parser.add_argument('--folder', help='where to write; a temporary one otherwise')
    parser.add_argument('--out', help='JSON file')
    options = parser.parse_args()

    from configs import default

    config = default.get_config()
    config.model.reconstructive_width, config.model.discriminative_width = map(int, options.widths.split('/'))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = measure(folder, make_state(config), options.repeats)
    for name, value in results.items():
        if isinstance(value, list):
            row = ', '.join(f'{seconds:.2f}' for seconds in value)
            print(f'{name:18} {statistics.median(value):6.2f} s   ({row})')
        else:
            print(f'{name:18} {value:6.2f}')
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
