"""Whether N devices train as one does, and what it costs to spread a step over two.

    python -m benchmarks.devices
    python -m benchmarks.devices --devices=1,2,4 --steps=20 --out=devices.json

On a CPU the devices are virtual: processes of their own see the same cores as so many devices. The losses of the first
steps are compared with those of one device. Then, in one process of two devices, the update mapped over both is timed
against the plain jitted update on one, at the same global batch, in turns; and the two things that only the former has:
an all-reduce of the gradients, and one of each batch normalisation's statistics.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def make(size, widths, batch_size, *, axis_name):
    """(networks, optimizer, initial state, batches) at a size; the examples are drawn noise with smooth shapes."""
    import numpy as np

    from draem_jax import networks, training

    model = networks.make_model(
        reconstructive_width=widths[0], discriminative_width=widths[1], dtype='float32', axis_name=axis_name
    )
    schedule = training.make_schedule(1000, learning_rate=1e-4, decay_factor=0.2, decay_at=(0.8, 0.9))
    optimizer = training.make_optimizer(schedule)
    state = training.init_state(networks.init_variables(model, (size, size), seed=0), optimizer)

    def batch(k):
        random = np.random.default_rng(k)

        def smooth(channels):
            coarse = random.integers(0, 256, (batch_size, size // 8, size // 8, channels), np.uint8)
            return coarse.repeat(8, 1).repeat(8, 2)

        return {'image': smooth(3), 'augmented': smooth(3), 'mask': (smooth(1) > 200).astype(np.uint8)}

    return model, optimizer, state, batch


def losses(size, widths, batch_size, steps):
    """The loss of each of the first steps, over all devices that JAX sees."""
    import jax

    from draem_jax import devices, training

    model, optimizer, state, batch = make(size, widths, batch_size, axis_name=devices.AXIS)
    update = devices.parallel_update(training.make_update(model, optimizer))
    state, found = devices.replicate(state), []
    for k in range(steps):
        state, metrics, _ = update(state, devices.split(batch(k)))
        found.append(float(jax.device_get(metrics['loss'])))
    return found


def ratio(size, widths, batch_size, repeats):
    """Seconds of a step: mapped over all devices, and jitted on one, in turns."""
    import jax

    from draem_jax import devices, training

    states, updates = {}, {}
    model, optimizer, state, batch = make(size, widths, batch_size, axis_name=devices.AXIS)
    mapped = devices.parallel_update(training.make_update(model, optimizer))
    split = next(iter(devices.prefetch([batch(0)])))
    states['mapped'], updates['mapped'] = devices.replicate(state), lambda state: mapped(state, split)[:2]

    # On one device an average over devices is what it is given.
    model, optimizer, state, _ = make(size, widths, batch_size, axis_name=None)
    whole = jax.device_put(batch(0), jax.devices()[0])
    averaging, devices.average = devices.average, lambda tree: tree
    plain = jax.jit(training.make_update(model, optimizer), donate_argnums=0)
    states['jitted'], updates['jitted'] = jax.device_put(state, jax.devices()[0]), lambda state: plain(state, whole)
    seconds = {name: [] for name in updates}
    for k in range(repeats + 2):
        for name, update in updates.items():
            start = time.perf_counter()
            states[name], metrics = update(states[name])
            jax.block_until_ready((states[name], metrics))
            if k >= 2:  # Compiling, and warming up.
                seconds[name].append(time.perf_counter() - start)
    devices.average = averaging
    return seconds


def in_a_process(devices, *arguments):
    """What this file, run in a process that sees so many devices, prints as JSON."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    command = [sys.executable, '-m', 'benchmarks.devices', *arguments]
    done = subprocess.run(
        command, env={**os.environ, 'XLA_FLAGS': flags}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--devices', default='1,2,4', help='numbers of virtual devices to compare')
    parser.add_argument('--size', type=int, default=64, help='of the images, in pixels')
    parser.add_argument('--widths', default='16,8', help='of the two networks')
    parser.add_argument('--batch', type=int, default=8, help='global batch size')
    parser.add_argument('--steps', type=int, default=20, help='whose losses are compared')
    parser.add_argument('--repeats', type=int, default=30, help='of the timed steps')
    parser.add_argument('--out', help='JSON file')
    parser.add_argument('--part', choices=('losses', 'ratio'), help=argparse.SUPPRESS)
    options = parser.parse_args()
    widths = tuple(map(int, options.widths.split(',')))
    if options.part:
        measure, last = (losses, options.steps) if options.part == 'losses' else (ratio, options.repeats)
        print(json.dumps(measure(options.size, widths, options.batch, last)))
        return
    handed_on = [f'--{name}={getattr(options, name)}' for name in ('size', 'widths', 'batch', 'steps', 'repeats')]
    counts = [int(count) for count in options.devices.split(',')]
    by_count = {count: in_a_process(count, '--part=losses', *handed_on) for count in counts}
    reference = by_count[counts[0]]
    print(f'{options.steps} steps of {options.batch} images of {options.size} px, widths {options.widths}, float32')
    found = {'losses': by_count, 'largest_relative_difference': {}}
    for count, values in by_count.items():
        difference = max(abs(value - one) / one for value, one in zip(values, reference, strict=True))
        found['largest_relative_difference'][count] = difference
        print(f'{count} devices: last loss {values[-1]:.7g}, largest difference to {counts[0]}: {difference:.2e}')
    found['seconds'] = in_a_process(2, '--part=ratio', *handed_on)
    for name, seconds in found['seconds'].items():
        least, median, most = (1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
        print(f'{name:8} {median:8.1f} ms ({least:.1f} to {most:.1f})')
    medians = {name: statistics.median(seconds) for name, seconds in found['seconds'].items()}
    found['ratio'] = medians['mapped'] / medians['jitted']
    print(f'two devices take {found["ratio"]:.3f} times as long as one with the same cores')
    if options.out:
        with open(options.out, 'w') as file:
            json.dump(found, file, indent=2)


if __name__ == '__main__':
    main()
