"""Whether N devices train as one does, and what it costs to spread a step over two.

    python -m benchmarks.devices
    python -m benchmarks.devices --devices=1,2,4 --steps=20 --out=devices.json

On a CPU the devices are virtual: processes of their own see the same cores as one, two or four devices. First the
losses of some steps are compared with those of one device, from the first step on and from a later one. In float32 the
order of a sum changes its last digits. A network this deep with batch normalisation multiplies the difference step by
step; how far it gets depends on --learning_rate. So one device is also compared with itself after a single weight of
its state was changed in its last bit. Then one process with two devices times the update mapped over both against the
plain jitted update on one, at the same global batch, in turns: only the mapped one has all-reduces, one of the
gradients and two of each batch normalisation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def make(size, widths, batch_size, learning_rate, *, axis_name):
    """The quickstart's (networks, optimizer, initial state, function of a step that gives the batches from it on)."""
    from commands import command_line  # noqa: F401  This keeps TensorFlow quiet.
    from configs import quickstart
    from data import inputs, pipeline
    from draem_jax.model import networks
    from draem_jax.training.optimizer import make_optimizer
    from draem_jax.training.state import init_state

    config = quickstart.get_config()
    config.dataset.image_size = (size, size)
    model = networks.make_model(
        reconstructive_width=widths[0], discriminative_width=widths[1], dtype='float32', axis_name=axis_name
    )
    optimizer = make_optimizer(learning_rate)
    state = init_state(networks.init_variables(model, (size, size), seed=0), optimizer)
    loaded = inputs.load(**config.dataset)

    def batches(first_batch):
        return pipeline.training_batches(
            loaded.normals,
            loaded.textures,
            seed=0,
            batch_size=batch_size,
            first_batch=first_batch,
            **config.synthesis,
        )

    return model, optimizer, state, batches


def losses(size, widths, batch_size, learning_rate, steps, state_file, *, saves=False, nudges=False):
    """The loss of each of `steps` steps over all devices that JAX sees.

    Training starts from the state in the file, or from the initial state if there is no file. With `saves` the last
    state is written to the file; with `nudges` one weight starts as the next larger number.
    """
    import jax
    import numpy as np

    from draem_jax import devices
    from draem_jax.training.update import make_update

    model, optimizer, state, batches = make(size, widths, batch_size, learning_rate, axis_name=devices.AXIS)
    leaves, structure = jax.tree.flatten(state)
    if os.path.exists(state_file):
        with np.load(state_file) as arrays:
            state = structure.unflatten([arrays[str(k)] for k in range(len(leaves))])
    if nudges:
        arrays, tree = jax.tree.flatten(state.params)
        arrays[-1] = np.array(arrays[-1])
        arrays[-1].flat[0] = np.nextafter(arrays[-1].flat[0], np.float32(np.inf))
        state = state.replace(params=tree.unflatten(arrays))
    update = devices.parallel_update(make_update(model, optimizer))
    values, fed = [], devices.prefetch(batches(int(state.step)))
    state = devices.replicate(state)
    for _ in range(steps):
        state, metrics, _ = update(state, next(fed))
        values.append(float(jax.device_get(metrics['loss'])))
    if saves:
        np.savez(state_file, **{str(k): leaf for k, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))})
    return values


def ratio(size, widths, batch_size, learning_rate, repeats):
    """Seconds of each step, mapped over all devices and jitted on one, which take turns."""
    import jax

    from draem_jax import devices
    from draem_jax.training.update import make_update

    states, updates = {}, {}
    model, optimizer, state, batches = make(size, widths, batch_size, learning_rate, axis_name=devices.AXIS)
    batch = next(batches(0))
    mapped = devices.parallel_update(make_update(model, optimizer))
    split = next(devices.prefetch([batch]))
    states['mapped'], updates['mapped'] = devices.replicate(state), lambda state: mapped(state, split)[:2]

    # On one device the average over devices is the identity.
    model = model.clone(axis_name=None)
    whole = jax.device_put(batch, jax.devices()[0])
    averaging, devices.average = devices.average, lambda tree: tree
    plain = jax.jit(make_update(model, optimizer), donate_argnums=0)
    states['jitted'], updates['jitted'] = jax.device_put(state, jax.devices()[0]), lambda state: plain(state, whole)
    seconds = {name: [] for name in updates}
    for k in range(repeats + 2):
        for name, update in updates.items():
            start = time.perf_counter()
            states[name], metrics = update(states[name])
            jax.block_until_ready((states[name], metrics))
            if k >= 2:  # The first two compile and warm up.
                seconds[name].append(time.perf_counter() - start)
    devices.average = averaging
    return seconds


def in_a_process(devices, *arguments):
    """Runs this file in a process that sees this many devices; returns what it prints as JSON."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    command = [sys.executable, '-m', 'benchmarks.devices', *arguments]
    done = subprocess.run(
        command, env={**os.environ, 'XLA_FLAGS': flags}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])  # TFDS prints that it prepares the data set.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--devices', default='1,2,4', help='numbers of virtual devices to compare')
    parser.add_argument('--size', type=int, default=64, help='of the images, in pixels')
    parser.add_argument('--widths', default='16,8', help='of the two networks')
    parser.add_argument('--batch', type=int, default=8, help='global batch size')
    parser.add_argument('--steps', type=int, default=20, help='whose losses are compared')
    parser.add_argument('--repeats', type=int, default=30, help='of the timed steps')
    parser.add_argument('--out', help='JSON file')
    parser.add_argument('--learning_rate', type=float, default=1e-4, help="the paper's")
    parser.add_argument('--later', type=int, default=600, help='the later step from which on losses are compared')
    parser.add_argument('--part', choices=('losses', 'nudged', 'warm', 'ratio'), help=argparse.SUPPRESS)
    parser.add_argument('--state', default='', help=argparse.SUPPRESS)
    options = parser.parse_args()
    # The start of the later comparison is trained at the usual rate.
    rate = 1e-4 if options.part == 'warm' else options.learning_rate
    setting = (options.size, tuple(map(int, options.widths.split(','))), options.batch, rate)
    if options.part == 'ratio':
        print(json.dumps(ratio(*setting, options.repeats)))
    elif options.part:
        steps = options.later if options.part == 'warm' else options.steps
        part = {'saves': options.part == 'warm', 'nudges': options.part == 'nudged'}
        print(json.dumps(losses(*setting, steps, options.state, **part)))
    else:
        compare(options)


def compare(options):
    """Prints the comparisons of the file's docstring; writes them to `options.out`."""
    handed_on = [
        f'--{name}={getattr(options, name)}'
        for name in ('size', 'widths', 'batch', 'steps', 'repeats', 'later', 'learning_rate')
    ]
    counts = [int(count) for count in options.devices.split(',')]
    print(f'{options.steps} steps of {options.batch} images of {options.size} px, widths {options.widths}, float32')
    results = {'losses': {}, 'largest_relative_difference': {}}
    with tempfile.TemporaryDirectory() as folder:
        for first in (0, options.later):
            state = f'--state={folder}/{first}.npz'
            if first:
                in_a_process(1, '--part=warm', state, *handed_on)
            compared = {f'{count} devices': in_a_process(count, '--part=losses', state, *handed_on) for count in counts}
            reference = compared[f'{counts[0]} devices']
            compared['a last bit'] = in_a_process(counts[0], '--part=nudged', state, *handed_on)
            for name, values in compared.items():
                differences = [abs(value - one) / one for value, one in zip(values, reference, strict=True)]
                results['losses'][f'{name} from {first}'] = values
                results['largest_relative_difference'][f'{name} from {first}'] = max(differences)
                print(
                    f'from step {first}, {name}: first loss {values[0]:.7g}, last {values[-1]:.7g}, differs '
                    f'from that of {counts[0]} by {differences[0]:.1e} at first and {max(differences):.1e} at most',
                    flush=True,
                )
    results['seconds'] = in_a_process(2, '--part=ratio', *handed_on)
    for name, seconds in results['seconds'].items():
        least, median, most = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
        print(f'{name:8} {median:8.1f} ms ({least:.1f} to {most:.1f})')
    medians = {name: statistics.median(seconds) for name, seconds in results['seconds'].items()}
    results['ratio'] = medians['mapped'] / medians['jitted']
    print(f'two devices take {results["ratio"]:.3f} times as long as one with the same cores')
    if options.out:
        with open(options.out, 'w') as file:
            json.dump(results, file, indent=2)


if __name__ == '__main__':
    main()
