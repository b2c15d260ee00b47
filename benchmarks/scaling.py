"""What several processes that train together spend a step on: examples, computing, collectives, the host's own work.

    python -m benchmarks.scaling --processes=2 --devices=2
    python -m benchmarks.scaling --processes=2 --part=call
    python -m benchmarks.scaling --coordinator=host0:1234 --process_count=2 --process_index=0    (on each host its own)
    python -m benchmarks.scaling --distributed --size=256 --widths=128,64 --dtype=bfloat16 --out=scaling.json

The first two forms start processes on this machine, on the CPU, which talk over the loopback; the others take the flags
of train.py. Each process has one row; process 0 prints all rows and writes them.

`--part=training` measures a training step three times:

- As train.py makes it, on the quickstart's examples at this size: `step`, and `input`, the share of it in which the
  process waits for its next batch. With --input=none the batch is always the same random one.
- With and without collectives, in turns: `collectives` is the difference of the two medians. The step without them,
  `alone`, averages neither gradients nor the statistics of batch normalisation, and runs on the same number of images
  on each device; each process takes it on its own, but all at the same time, so that they share cores as they do
  otherwise. All processes meet before each of these steps. The difference is the time that training in parallel adds:
  what travels, and waiting for the slower processes. It may be more than the time inside of collectives as a trace
  shows it, since XLA fuses less around them, or a little negative, where it is smaller than the noise.
- `host` is the time of the call alone, until it returns while the devices still compute. Everything before is done by
  then, so the call waits for nothing. It matters where it is longer than the step on the device. Small programs are
  run by JAX within the call if the device is a CPU; then it is the whole step.

The slowest process is the one whose `input` and `alone` together take longest: the others wait for it.

`--part=call` times the call alone of an update that does nothing, on 555 arrays of a few numbers, as many as a state of
a training has: through `jax.pmap` over the devices of all processes, and through `devices.parallel_update`, in turns.
Where other programs compute as well, the least of the calls says more than the median.
"""

import argparse
import collections
import itertools
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import traceback

from benchmarks.devices import make, quickstart_batches, virtual, without_averages, write

LEAVES = 555
COLLECTIVE = re.compile(r'\b(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(')
WARM_UP = 3


def local_update(update):
    """An update over the devices of this process alone, which must not average.

    Returns:
        (update(state, batch) -> (state, metrics), the sharding of states, the sharding of batches [d, b/d, ...]).
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from draem_jax import devices

    mesh = Mesh(np.array(jax.local_devices()), (devices.AXIS,))
    whole, parts = PartitionSpec(), PartitionSpec(devices.AXIS)
    # Without averages the devices have different results. The first one's go on, as all are as good for the clock.
    mapped = jax.shard_map(
        lambda state, batch: update(state, jax.tree.map(lambda leaf: leaf[0], batch)),
        mesh=mesh,
        in_specs=(whole, parts),
        out_specs=whole,
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0), NamedSharding(mesh, whole), NamedSharding(mesh, parts)


def measure_training(options):
    """What the file's docstring describes: ({name: milliseconds} of this process, {collective: how many in a step})."""
    import jax

    from benchmarks import ours
    from draem_jax import devices, processes
    from draem_jax.model import networks
    from draem_jax.training.steps import take_steps
    from draem_jax.training.throughput import Throughput
    from draem_jax.training.update import make_update

    widths = tuple(map(int, options.widths.split(',')))
    model, optimizer, start = make(options.size, widths, 1e-4, axis_name=devices.AXIS, dtype=options.dtype)
    global_batch = options.batch * devices.count()
    if options.input == 'none':
        batches = itertools.repeat(ours.draw_batch(options.batch * jax.local_device_count(), options.size))
    else:
        if not processes.is_main():
            processes.meet('the data set is drawn')
        batches = quickstart_batches(options.size, global_batch)
        if processes.is_main():
            processes.meet('the data set is drawn')
    batch = next(batches)

    update = devices.parallel_update(make_update(model, optimizer))
    placed = next(devices.prefetch([batch]))
    program = update.compile(devices.replicate(start), placed).as_text()
    counts = collections.Counter(COLLECTIVE.findall(program))

    flops = 3 * networks.forward_flops(model, (options.size, options.size))
    speed = Throughput(global_batch, flops)
    for step in take_steps(
        update,
        devices.replicate(start),
        devices.prefetch(batches),
        range(1, WARM_UP + options.steps + 1),
        interruption=False,
        speed=speed,
        before_step=lambda count, state: None,
    ):
        state = step.state
        if step.number == WARM_UP:
            jax.block_until_ready(state)
            processes.meet('warm')
            speed.restart()
    jax.block_until_ready(state)
    trained = speed.values()
    row = {'step': 1e3 * trained['step_seconds'], 'input': 1e3 * trained['input_wait_seconds']}

    alone, whole, parts = local_update(make_update(model.clone(axis_name=None), optimizer))
    states = {'together': state, 'alone': jax.device_put(start, whole)}
    own = jax.device_put(devices.split(batch), parts)
    calls = {
        'together': lambda state: update(state, placed)[:2],
        'alone': lambda state: alone(state, own),
    }
    with without_averages():
        states['alone'], _ = jax.block_until_ready(calls['alone'](states['alone']))
    seconds, host = {name: [] for name in calls}, {name: [] for name in calls}
    for k in range(WARM_UP + options.steps):
        for name, call in calls.items():
            processes.meet(name)
            begin = time.perf_counter()
            states[name], metrics = call(states[name])
            returned = time.perf_counter()
            jax.block_until_ready((states[name], metrics))
            if k >= WARM_UP:
                seconds[name].append(time.perf_counter() - begin)
                host[name].append(returned - begin)
    row |= {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    row['collectives'] = row['together'] - row['alone']
    row['host'] = 1e3 * statistics.median(host['together'])
    return row, counts


def measure_call(options):
    """({name: milliseconds} of a call alone, by the way in which the update is mapped; nothing else)."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from draem_jax import devices

    start = [np.full(8, k, np.float32) for k in range(LEAVES)]
    batch = {'image': np.zeros((jax.local_device_count(), 8), np.float32)}

    def update(state, batch):
        return state, {'loss': jnp.sum(batch['image'])}

    def update_and_ask(state, batch, asks_to_stop):
        return *update(state, batch), lax.psum(asks_to_stop, devices.AXIS)

    mesh = Mesh(np.array(jax.local_devices()), (devices.AXIS,))
    mapped = jax.pmap(update_and_ask, axis_name=devices.AXIS, in_axes=(None, 0, None), out_axes=None, donate_argnums=0)
    local = jax.device_put(devices.split(batch), NamedSharding(mesh, PartitionSpec(devices.AXIS)))
    ours, placed = devices.parallel_update(update), next(devices.prefetch([batch]))
    calls = {
        'pmap': lambda state: mapped(state, local, np.float32(0)),
        'parallel_update': lambda state: ours(state, placed),
    }
    states = {
        'pmap': jax.device_put(start, NamedSharding(mesh, PartitionSpec())),
        'parallel_update': devices.replicate(start),
    }
    seconds = {name: [] for name in calls}
    for k in range(WARM_UP + 5 * options.steps):
        for name, call in calls.items():
            begin = time.perf_counter()
            states[name], *others = call(states[name])
            returned = time.perf_counter()
            jax.block_until_ready((states[name], others))
            if k >= WARM_UP:
                seconds[name].append(returned - begin)
    summaries = {'': statistics.median, '_least': min}
    return {name + end: 1e3 * of(seconds[name]) for name in calls for end, of in summaries.items()}, {}


def gather(row):
    """The rows of all processes, in each of them: the one given here, with the name of its host."""
    import numpy as np
    from jax.experimental import multihost_utils

    name = np.frombuffer(socket.gethostname().encode()[:64].ljust(64), np.uint8)
    values, names = multihost_utils.process_allgather((np.array(list(row.values()), np.float32), name))
    values, names = values.reshape(-1, len(row)), names.reshape(-1, 64)
    return [
        {'process': k, 'host_name': names[k].tobytes().decode().strip()}
        | dict(zip(row, map(float, values[k]), strict=True))
        for k in range(len(values))
    ]


def slowest(rows):
    """The row of the process for which the others wait."""
    return max(rows, key=lambda row: row['input'] + row['alone'])


def print_training(rows, counts):
    print(f'{"process":9}{"host name":20}{"step":>10}{"input":>9}{"alone":>11}{"collectives":>13}{"host":>9}')
    for row in rows:
        print(
            f'{row["process"]:<9}{row["host_name"][:19]:20}{row["step"]:10.2f}{100 * row["input"] / row["step"]:7.1f} %'
            f'{row["alone"]:11.2f}{row["collectives"]:13.2f}{row["host"]:9.2f}'
        )
    last, first = slowest(rows), min(rows, key=lambda row: row['input'] + row['alone'])
    kinds = ', '.join(f'{count} {kind}' for kind, count in counts.items())
    print(f'Collectives in a step: {kinds or "none"}.')
    print(
        f'Slowest: process {last["process"]}, whose examples and computing take {last["input"] + last["alone"]:.2f} '
        f'ms; the fastest takes {first["input"] + first["alone"]:.2f}.'
    )


def print_call(rows, counts):
    print(f'{"process":9}{"host name":20}{"pmap":>10}{"least":>8}{"parallel_update":>21}{"least":>8}')
    for row in rows:
        print(
            f'{row["process"]:<9}{row["host_name"][:19]:20}{row["pmap"]:10.2f}{row["pmap_least"]:8.2f}'
            f'{row["parallel_update"]:21.2f}{row["parallel_update_least"]:8.2f}'
        )


def measure(options):
    """Takes part as one of the processes; process 0 prints and writes what all have measured."""
    import jax

    from draem_jax import devices, processes

    devices.cache_compilations()
    measure_part, print_part = PARTS[options.part]
    row, counts = measure_part(options)
    processes.meet('measured')
    rows = gather(row)
    if processes.is_main():
        print(f'{devices.describe()}, jax {jax.__version__}; milliseconds')
        print_part(rows, counts)
        results = {'options': vars(options), 'devices': devices.describe(), 'jax': jax.__version__, 'rows': rows}
        if options.part == 'training':
            results |= {'collectives_in_a_step': counts, 'slowest': slowest(rows)['process']}
        write(options.out, results)
    processes.meet('the end')


PARTS = {'training': (measure_training, print_training), 'call': (measure_call, print_call)}


def start_processes(options):
    """Starts the processes on this machine and waits for them; none of them is left when it returns or raises."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('Stopped by SIGTERM.'))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'benchmarks.scaling', *sys.argv[1:], '--child', f'--coordinator=127.0.0.1:{port}']
    children = []
    try:
        for index in range(options.processes):
            flags = [f'--process_count={options.processes}', f'--process_index={index}']
            children.append(subprocess.Popen([*command, *flags], env=virtual(options.devices), stdin=subprocess.PIPE))
        while any(child.poll() is None for child in children):
            if any(child.poll() for child in children):
                break
            time.sleep(0.05)
        failed = [index for index, child in enumerate(children) if child.poll()]
        if failed:
            sys.exit(f'Error: process {failed[0]} ended with exit code {children[failed[0]].returncode}.')
    finally:
        for child in children:
            child.kill()
            child.wait()


def end_with_the_parent():
    """Ends this process once its standard input closes: the system closes it however the parent ends."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--processes', type=int, default=2, help='to start on this machine')
    parser.add_argument('--devices', type=int, default=1, help='virtual devices of each process started here')
    parser.add_argument('--part', choices=PARTS, default='training')
    parser.add_argument(
        '--input', choices=('quickstart', 'none'), default='quickstart', help='where examples come from'
    )
    parser.add_argument('--size', type=int, default=64, help='of the images, in pixels')
    parser.add_argument('--widths', default='16,8', help='of the two networks')
    parser.add_argument('--dtype', default='float32')
    parser.add_argument('--batch', type=int, default=4, help='images on each device')
    parser.add_argument('--steps', type=int, default=30, help='that are timed of each kind')
    parser.add_argument('--out', help='JSON file')
    parser.add_argument(
        '--distributed', action='store_true', help='the environment knows the processes, as for train.py'
    )
    parser.add_argument('--coordinator', help='HOST:PORT of process 0, as for train.py')
    parser.add_argument('--process_count', type=int)
    parser.add_argument('--process_index', type=int)
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    named = {name: getattr(options, name) for name in ('coordinator', 'process_count', 'process_index')}
    if not options.distributed and all(value is None for value in named.values()):
        start_processes(options)
        return
    if options.child:
        end_with_the_parent()
    from draem_jax import processes
    from draem_jax.errors import UserError

    try:
        processes.connect(**named)
        measure(options)
    except Exception as error:  # The others must not wait for this one.
        if isinstance(error, UserError):
            print(f'Error: {error}', file=sys.stderr)
        else:
            traceback.print_exc()
        processes.exit_process(1)


if __name__ == '__main__':
    main()
