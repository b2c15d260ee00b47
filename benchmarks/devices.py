"""Whether N devices train as one does, what spreading a step costs, and what more devices bring.

    python -m benchmarks.devices
    python -m benchmarks.devices --devices=1,2,4 --steps=20 --out=devices.json
    python -m benchmarks.devices --scaling --batch=8 --out=scaling.json

There are two measurements. Scaling runs where JAX finds several accelerators, the comparison everywhere else;
--scaling and --no-scaling choose by hand. Every row is measured in a process of its own.

Comparison, always on a CPU, whose devices are virtual: processes see the same cores as one, two or four devices. First
the losses of some steps are compared with those of one device, from the first step on and from a later one. In float32
the order of a sum changes its last digits. A network this deep with batch normalisation multiplies the difference step
by step; how far it gets depends on --learning_rate. So one device is also compared with itself after a single weight of
its state was changed in its last bit. Then one process with two devices times the update mapped over both against the
plain jitted update on one, at the same global batch, in turns: only the mapped one has all-reduces, one of the
gradients and those of each batch normalisation.

Scaling: the training step on 1, 2, 4 and 8 devices of one process, those that exist, with random uint8 batches from the
host's memory. Weak scaling keeps --batch images on each device; strong scaling keeps the global batch, which is the one
that weak scaling reaches on the most devices. The efficiency is the images per second of each device over those of the
first row, one device. If a batch is too large for one device, that row shows the error, and the next one is the first.
A process sees the first N GPUs by CUDA_VISIBLE_DEVICES. TPUs are not supported, because a process takes all chips of
its host. On a CPU (--scaling) the devices are virtual and share the cores: this shows that the measurement works, not
how the program scales.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from commands.local_launcher import find_devices
from draem_jax import run_directory

SMALL = {'size': 64, 'widths': '16,8', 'dtype': 'float32'}
FULL = {'size': 256, 'widths': '128,64', 'dtype': 'bfloat16'}


def make(size, widths, learning_rate, *, axis_name, dtype='float32'):
    """(networks, optimizer, initial state on the host)."""
    from draem_jax.model import networks
    from draem_jax.training.optimizer import make_optimizer
    from draem_jax.training.state import init_state

    model = networks.make_model(
        reconstructive_width=widths[0], discriminative_width=widths[1], dtype=dtype, axis_name=axis_name
    )
    optimizer = make_optimizer(learning_rate)
    return model, optimizer, init_state(networks.init_variables(model, (size, size), seed=0), optimizer)


def quickstart_batches(size, batch_size, first_batch=0):
    """This process's part of the quickstart's endless batches, from `first_batch` on."""
    from commands import command_line  # noqa: F401  This keeps TensorFlow quiet.
    from configs import quickstart
    from data import inputs, pipeline
    from draem_jax import processes

    config = quickstart.get_config()
    config.dataset.image_size = (size, size)
    loaded = inputs.load(**config.dataset)
    return pipeline.training_batches(
        loaded.normals,
        loaded.textures,
        seed=0,
        batch_size=batch_size,
        first_batch=first_batch,
        process_index=processes.process_index(),
        process_count=processes.process_count(),
        **config.synthesis,
    )


@contextlib.contextmanager
def without_averages():
    """Leaves the averages over devices out of an update whose first call, which traces it, is in the `with` block."""
    from draem_jax import devices

    average, devices.average = devices.average, lambda tree: tree
    try:
        yield
    finally:
        devices.average = average


def losses(size, widths, batch_size, learning_rate, steps, state_file, *, saves=False, nudges=False):
    """The loss of each of `steps` steps over all devices that JAX sees.

    Training starts from the state in the file, or from the initial state if there is no file. With `saves` the last
    state is written to the file; with `nudges` one weight starts as the next larger number.
    """
    import jax
    import numpy as np

    from draem_jax import devices
    from draem_jax.training.update import make_update

    model, optimizer, state = make(size, widths, learning_rate, axis_name=devices.AXIS)
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
    values, fed = [], devices.prefetch(quickstart_batches(size, batch_size, int(state.step)))
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

    model, optimizer, state = make(size, widths, learning_rate, axis_name=devices.AXIS)
    batch = next(quickstart_batches(size, batch_size))
    split, whole = next(devices.prefetch([batch])), jax.device_put(batch, jax.devices()[0])
    mapped = devices.parallel_update(make_update(model, optimizer))
    plain = jax.jit(make_update(model.clone(axis_name=None), optimizer), donate_argnums=0)
    updates = {'mapped': lambda state: mapped(state, split)[:2], 'jitted': lambda state: plain(state, whole)}
    states = {'mapped': devices.replicate(state), 'jitted': jax.device_put(state, jax.devices()[0])}
    seconds = {name: [] for name in updates}
    for k in range(repeats + 2):
        for name, update in updates.items():
            # On one device the average over devices is the identity.
            with without_averages() if name == 'jitted' else contextlib.nullcontext():
                start = time.perf_counter()
                states[name], metrics = update(states[name])
                jax.block_until_ready((states[name], metrics))
            if k >= 2:  # The first two compile and warm up.
                seconds[name].append(time.perf_counter() - start)
    return seconds


def step_seconds(size, widths, batch_size, dtype, steps, repeats):
    """Seconds a step over all devices that JAX sees, in each of some rounds: a dict, with 'error' if that fails."""
    import jax

    from benchmarks import ours, serving
    from draem_jax import devices

    devices.cache_compilations()
    seen = {'devices': devices.count(), 'device': jax.devices()[0].device_kind}
    try:
        side = ours.Side(size, widths, batch_size, dtype, False)
        side.train(1)  # Compiles and warms up.
        return seen | {'seconds': [side.train(steps)['seconds'] for _ in range(repeats)]}
    except jax.errors.JaxRuntimeError as error:  # Memory, above all.
        return seen | {'error': serving.describe_error(error)}


def virtual(count):
    """The environment of a process that sees this many virtual devices, and no accelerator."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={count}'
    return {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}


def first_gpus(count):
    """The environment of a process that sees the first GPUs of those that this one sees."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    names = visible if visible != [''] else [str(k) for k in range(count)]
    # JAX takes three quarters of the memory unless it is told otherwise.
    return {'XLA_CLIENT_MEM_FRACTION': '.95', **os.environ, 'CUDA_VISIBLE_DEVICES': ','.join(names[:count])}


def in_a_process(environment, *arguments):
    """Runs this file in a process of its own; returns what it prints as JSON."""
    command = [sys.executable, '-m', 'benchmarks.devices', *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # TFDS prints that it prepares the data set.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--scaling', action=argparse.BooleanOptionalAction, help='default: where JAX finds several accelerators'
    )
    parser.add_argument('--devices', help='numbers of devices; 1,2,4, for scaling on GPUs all of 1,2,4,8 that exist')
    parser.add_argument('--size', type=int, help='of the images, in pixels; 64, for scaling on GPUs 256')
    parser.add_argument('--widths', help='of the two networks; 16,8, for scaling on GPUs 128,64')
    parser.add_argument('--batch', type=int, default=8, help='global batch size; in weak scaling images on each device')
    parser.add_argument('--steps', type=int, default=20, help='whose losses are compared; for scaling, in each round')
    parser.add_argument('--repeats', type=int, help='of the timed steps, 30; for scaling, rounds, 5')
    parser.add_argument('--out', help='JSON file, written anew after every row')
    parser.add_argument('--dtype', help='for scaling: float32 or bfloat16; float32, on GPUs bfloat16')
    parser.add_argument('--learning_rate', type=float, default=1e-4, help="the paper's")
    parser.add_argument('--later', type=int, default=600, help='the later step from which on losses are compared')
    parser.add_argument('--part', choices=('losses', 'nudged', 'warm', 'ratio', 'steps'), help=argparse.SUPPRESS)
    parser.add_argument('--state', default='', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(run_part(options)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('Stopped by SIGTERM.'))  # And with it the process of the row.
    backend, count = ('cpu', 1) if options.scaling is False else find_devices()
    is_scaling = count > 1 and backend != 'cpu' if options.scaling is None else options.scaling
    if is_scaling and backend == 'tpu':
        sys.exit('Error: scaling is not measured on TPUs, because a process takes all chips of its host.')
    on_gpus = is_scaling and backend != 'cpu'
    for name, value in (FULL if on_gpus else SMALL).items():
        setattr(options, name, getattr(options, name) or value)
    options.repeats = options.repeats or (5 if is_scaling else 30)
    options.devices = options.devices or ','.join(str(k) for k in (1, 2, 4, 8) if k <= (count if on_gpus else 4))
    if is_scaling:
        scale(options, first_gpus if on_gpus else virtual)
    else:
        compare(options)


def run_part(options):
    """What one process does; returns plain values."""
    size, widths = options.size, tuple(map(int, options.widths.split(',')))
    if options.part == 'steps':
        return step_seconds(size, widths, options.batch, options.dtype, options.steps, options.repeats)
    # The start of the later comparison is trained at the usual rate.
    setting = (size, widths, options.batch, 1e-4 if options.part == 'warm' else options.learning_rate)
    if options.part == 'ratio':
        return ratio(*setting, options.repeats)
    steps = options.later if options.part == 'warm' else options.steps
    return losses(*setting, steps, options.state, saves=options.part == 'warm', nudges=options.part == 'nudged')


def hand_on(options, *names):
    """Flags that give a process some of the options."""
    return [f'--{name}={getattr(options, name)}' for name in names]


def write(path, results):
    if path:
        run_directory.write_text(path, json.dumps(results, indent=2))


def per_device(row):
    """Images per second of each device."""
    return row['batch'] / row['median'] / row['devices']


def scale(options, environment):
    """Prints weak and strong scaling; writes them to `options.out`.

    Args:
        environment: environment(N), of a process that sees N devices.
    """
    counts = sorted(map(int, options.devices.split(',')))
    most = options.batch * counts[-1]
    wanted = [('weak', count, options.batch * count) for count in counts]
    if any(most % count for count in counts):
        sys.exit(f'Error: a global batch of {most} does not divide over {options.devices} devices.')
    wanted += [('strong', count, most) for count in counts]
    handed_on = hand_on(options, 'size', 'widths', 'dtype', 'steps', 'repeats')
    measured, results = {}, {'options': vars(options), 'rows': []}
    print(f'{options.size} px, widths {options.widths}, {options.dtype}; median of {options.repeats} rounds')
    print(
        f'{"scaling":8}{"devices":>8}{"batch":>7}{"ms":>10}{"least":>10}{"most":>10}{"images/s":>10}{"efficiency":>12}'
    )
    for kind, count, batch in wanted:
        if (count, batch) not in measured:  # The last row of both kinds is the same.
            measured[count, batch] = measure(environment(count), count, batch, handed_on)
        row = {'scaling': kind, **measured[count, batch]}
        if 'error' not in row:
            first = next((other for other in results['rows'] if other['scaling'] == kind and 'median' in other), row)
            row['efficiency'] = per_device(row) / per_device(first)
        results['rows'].append(row)
        write(options.out, results)
        print(describe(row), flush=True)


def measure(environment, count, batch, handed_on):
    """The row of one number of devices and one global batch, without its efficiency."""
    row = {'devices': count, 'batch': batch}
    try:
        answer = in_a_process(environment, '--part=steps', f'--batch={batch}', *handed_on)
    except subprocess.CalledProcessError as error:
        return row | {'error': f'The process ended with exit code {error.returncode}.'}
    if answer['devices'] != count:
        return row | {'error': f'Expected {count} devices, JAX found {answer["devices"]}.'}
    if 'error' in answer:
        return row | answer
    seconds, median = answer['seconds'], statistics.median(answer['seconds'])
    rates = {'median': median, 'least': min(seconds), 'most': max(seconds), 'images_per_second': batch / median}
    return row | answer | rates


def describe(row):
    """A line of the table of scaling."""
    start = f'{row["scaling"]:8}{row["devices"]:8}{row["batch"]:7}'
    if 'error' in row:
        return f'{start}  {row["error"]}'
    times = ''.join(f'{1e3 * row[name]:10.2f}' for name in ('median', 'least', 'most'))
    return f'{start}{times}{row["images_per_second"]:10.1f}{row["efficiency"]:12.3f}'


def compare(options):
    """Prints the comparisons of the file's docstring; writes them to `options.out`."""
    handed_on = hand_on(options, 'size', 'widths', 'batch', 'steps', 'repeats', 'later', 'learning_rate')
    counts = [int(count) for count in options.devices.split(',')]
    print(f'{options.steps} steps of {options.batch} images of {options.size} px, widths {options.widths}, float32')
    results = {'losses': {}, 'largest_relative_difference': {}}
    with tempfile.TemporaryDirectory() as folder:
        for first in (0, options.later):
            state = f'--state={folder}/{first}.npz'
            if first:
                in_a_process(virtual(1), '--part=warm', state, *handed_on)
            parts = [(f'{count} devices', count, 'losses') for count in counts]
            reference = None
            for name, count, part in (*parts, ('a last bit', counts[0], 'nudged')):
                values = in_a_process(virtual(count), f'--part={part}', state, *handed_on)
                reference = reference or values
                differences = [abs(value - one) / one for value, one in zip(values, reference, strict=True)]
                results['losses'][f'{name} from {first}'] = values
                results['largest_relative_difference'][f'{name} from {first}'] = max(differences)
                write(options.out, results)
                print(
                    f'from step {first}, {name}: first loss {values[0]:.7g}, last {values[-1]:.7g}, differs '
                    f'from that of {counts[0]} by {differences[0]:.1e} at first and {max(differences):.1e} at most',
                    flush=True,
                )
    results['seconds'] = in_a_process(virtual(2), '--part=ratio', *handed_on)
    for name, seconds in results['seconds'].items():
        least, median, most = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
        print(f'{name:8} {median:8.1f} ms ({least:.1f} to {most:.1f})')
    medians = {name: statistics.median(seconds) for name, seconds in results['seconds'].items()}
    results['ratio'] = medians['mapped'] / medians['jitted']
    print(f'two devices take {results["ratio"]:.3f} times as long as one with the same cores')
    write(options.out, results)


if __name__ == '__main__':
    main()
