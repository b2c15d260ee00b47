"""The part that `train_step` and `inference` share: processes that do the same work in turns.

Each contender is a process of its own, so that no library meets another's threads and memory. All contenders do a few
steps one after the other, again and again, so that other work on the machine slows all of them alike. This file needs
nothing but Python, because the contenders import it in environments of their own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import traceback

# TFLOP/s of one device in dense bfloat16 matrix products (float16 on the T4, which has no bfloat16). The keys are parts
# of the names that JAX gives devices; the first that fits counts. Sources: NVIDIA's data sheets of A100, H100 (SXM; the
# PCIe card is slower), H200, L4, T4 and of the Ada architecture (float32 accumulation), half of what they give with
# sparsity; Google Cloud's pages of TPU v4, v5e, v5p and v6e.
PEAKS = {
    'H100 PCIe': 756.0,
    'H100': 989.0,
    'H200': 989.0,
    'A100': 312.0,
    'L4': 121.0,
    'T4': 65.0,
    'RTX 4090': 165.2,
    'TPU v4': 275.0,
    'TPU v5 lite': 197.0,
    'TPU v5e': 197.0,
    'TPU v5': 459.0,
    'TPU v6': 918.0,
}

CPU_SIZES, ACCELERATOR_SIZES = '64:16/8,128:32/16', '256:128/64'
CPU_VARIANTS = 'float32,float32+channels_last,bfloat16+channels_last'
CUDA_VARIANTS = 'float32,tf32,bfloat16+channels_last,bfloat16+channels_last+compile'


def serve(answer):
    """Answers each line of standard input with a line of JSON: what `answer(*words)` returns, or its error.

    Libraries print to standard error meanwhile, so that their lines are not taken for answers.
    """
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(*line.split())
        except Exception as error:  # The other contenders go on.
            traceback.print_exc(file=sys.stderr)
            reply = {'error': f'{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ""}'}
        replies.write(json.dumps(reply) + '\n')


class Contender:
    """A process that runs `serve`, until `close`.

    Attributes:
        name: for the table.
        error: why it no longer takes part, or None.
    """

    def __init__(self, name, command, verbose=False):
        self.name, self.error = name, None
        errors = None if verbose else subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        )

    def ask(self, *words):
        """The answer to a request; None where there is none, with `error` saying why."""
        if self.error:
            return None
        try:
            self._process.stdin.write(' '.join(map(str, words)) + '\n')
            reply = json.loads(self._process.stdout.readline() or '{"error": "The process ended."}')
        except (OSError, ValueError) as error:
            reply = {'error': str(error)}
        self.error = reply.get('error')
        return None if self.error else reply

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def backend():
    """What JAX runs on here: 'cpu', 'gpu' or 'tpu'. Asks another process, so that this one stays without JAX."""
    code = 'import jax; print(jax.default_backend())'
    return subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout.split()[-1]


def peak(device):
    """TFLOP/s of a device by its name, or None."""
    return next((value for name, value in PEAKS.items() if name in device), None)


def parse_sizes(text):
    """'64:16/8,128:32/16' -> [(64, 16, 8), (128, 32, 16)]: pixels and the widths of the two networks."""
    sizes = [tuple(map(int, part.replace('/', ':').split(':'))) for part in text.split(',')]
    if any(len(numbers) != 3 for numbers in sizes):
        raise ValueError(text)
    return sizes


def commands(flags, size, widths, batch):
    """{name: command} for ours in each dtype and for PyTorch in each variant."""
    shape = [f'--size={size}', f'--widths={widths[0]}/{widths[1]}', f'--batch={batch}']
    contenders = {}
    for dtype in flags.dtype.split(','):
        command = [sys.executable, '-m', 'benchmarks.ours', *shape, f'--dtype={dtype}']
        if flags.remat:
            command.append('--remat')
        contenders[f'draem_jax {dtype}{" remat" if flags.remat else ""}'] = command
    if flags.pytorch:
        python = sys.executable if flags.pytorch == 'python' else flags.pytorch
        for variant in flags.variants.split(','):
            command = [python, '-m', 'benchmarks.pytorch_opponent', *shape, f'--variant={variant}']
            command.append(f'--threads={flags.threads}')
            contenders[f'PyTorch {variant}'] = command
    return contenders


def compete(running, work, repeats, steps):
    """{name: seconds a step in each round} of all contenders, which run one after the other in every round."""
    for one in running:
        one.ask(work, steps)  # Compiles, and allocates memory.
    seconds = {one.name: [] for one in running}
    for _ in range(repeats):
        for one in running:
            reply = one.ask(work, steps)
            seconds[one.name].append(reply['seconds'] if reply else None)
    return seconds


def describe(one, facts, seconds, reference, work, batch):
    """A row of the table and of the JSON file."""
    row = {'name': one.name, 'batch': batch, 'error': one.error}
    if one.error:
        return row
    memory = one.ask('memory')
    median = statistics.median(seconds)
    work_share = {'train': 3, 'predict': 1}[work]  # The backward pass counts twice: gradients of inputs and of kernels.
    rate = 1e-12 * facts['forward_flops'] * batch * work_share / median
    measured = {
        'seconds': seconds,
        'median': median,
        'least': min(seconds),
        'most': max(seconds),
        'images_per_second': batch / median,
        'tflops': rate,
        'share_of_peak': rate / facts['peak_tflops'] if facts['peak_tflops'] else None,
        'share_of_measured': rate / facts['matrix_tflops'],
        'relative': statistics.median(a / b for a, b in zip(seconds, reference, strict=True)) if reference else None,
    }
    return row | measured | (memory or {})


def check_parameters(facts):
    """Raises SystemExit unless all contenders that answered have the same number of parameters."""
    counts = {name: answer['parameters'] for name, answer in facts.items() if answer}
    if len(set(counts.values())) > 1:
        raise SystemExit(f'Error: the contenders are not the same networks: {counts} parameters.')


def check_losses(running):
    """Trains the first of ours and of PyTorch three steps from the same weights on one batch and compares the losses.

    Raises:
        SystemExit: the first losses, which have the same weights, differ by more than 1e-4 of their value. The later
            losses come after updates and so show the gradients. They may differ by 1e-2, because Adam's first steps
            follow the sign of a gradient, however small the gradient is.
    """
    ours = next(one for one in running if one.name.startswith('draem_jax'))
    theirs = next((one for one in running if one.name.startswith('PyTorch')), None)
    if theirs is None:
        raise SystemExit('Error: --check compares with PyTorch: pass --pytorch as well.')
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'start.npz')
        pair = [one.ask('losses', path) for one in (ours, theirs)]
    for one in (ours, theirs):
        if one.error:
            raise SystemExit(f'Error: {one.name}: {one.error}')
    worst = 0.0
    for step, (a, b) in enumerate(zip(*(reply['losses'] for reply in pair), strict=True), 1):
        for name in a:
            difference = abs(a[name] - b[name]) / abs(a[name])
            worst = max(worst, difference / (1e-4 if step == 1 else 1e-2))
            print(f'  step {step}  {name:6}{a[name]:14.8f}{b[name]:14.8f}  relative difference {difference:.1e}')
    difference = abs(pair[0]['map_mean'] - pair[1]['map_mean']) / pair[0]['map_mean']
    print(f'  anomaly map afterwards, mean: relative difference {difference:.1e}')
    if max(worst, difference / 1e-2) > 1:
        raise SystemExit('Error: the networks or the losses are not the same.')


def print_rows(rows):
    """The table of one configuration."""
    for row in rows:
        if row['error']:
            print(f'{row["name"]:42}  {row["error"]}')
            continue
        share = '' if row['share_of_peak'] is None else f'{100 * row["share_of_peak"]:.0f} %'
        relative = '' if row['relative'] is None else f'{row["relative"]:.2f}'
        print(
            f'{row["name"]:42}{1e3 * row["median"]:10.2f}{1e3 * row["least"]:10.2f}{1e3 * row["most"]:10.2f}'
            f'{row["images_per_second"]:10.1f}{row["tflops"]:9.3f}{share:>7}'
            f'{100 * row["share_of_measured"]:7.0f} %{row["peak_mb"]:9.0f}{relative:>8}',
            flush=True,
        )


def main(work, doc):
    """Measures 'train' or 'predict' as the command line says."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', help=f'pixels:widths; {CPU_SIZES} on a CPU, {ACCELERATOR_SIZES} elsewhere')
    parser.add_argument('--batch', help='images a step; 8 on a CPU, 8,16,32,64 elsewhere')
    parser.add_argument('--dtype', help='of ours: float32 on a CPU, bfloat16,float32 elsewhere')
    parser.add_argument('--remat', action='store_true', help='ours with model.remat: less memory, more time')
    parser.add_argument(
        '--pytorch', help='a Python that has torch, or "python" for this one; without it, ours runs alone'
    )
    parser.add_argument('--variants', help='of PyTorch: float32, tf32 or bfloat16, +channels_last, +compile')
    parser.add_argument(
        '--threads', type=int, default=0, help='pin all contenders to this many cores of a CPU; 0: do not pin'
    )
    parser.add_argument('--repeats', type=int, default=15, help='rounds, whose median counts')
    parser.add_argument('--steps', type=int, default=3, help='steps in each round')
    parser.add_argument('--check', action='store_true', help='compare the losses of ours and of PyTorch first')
    parser.add_argument('--verbose', action='store_true', help='show what the contenders print')
    parser.add_argument('--out', help='a JSON file for the figures')
    flags = parser.parse_args()

    if flags.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.threads])  # Children inherit it.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # Others need memory too.
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '0')
    on_cpu = backend() == 'cpu'
    flags.sizes = flags.sizes or (CPU_SIZES if on_cpu else ACCELERATOR_SIZES)
    flags.batch = flags.batch or ('8' if on_cpu else '8,16,32,64')
    flags.dtype = flags.dtype or ('float32' if on_cpu else 'bfloat16,float32')
    flags.variants = flags.variants or (CPU_VARIANTS if on_cpu else CUDA_VARIANTS)

    try:
        sizes = parse_sizes(flags.sizes)
    except ValueError:
        parser.error(f'--sizes={flags.sizes}: expected pixels:widths as in {CPU_SIZES}.')
    table = []
    for size, *widths in sizes:
        for batch in map(int, flags.batch.split(',')):
            running, facts = [], {}
            try:
                for name, command in commands(flags, size, widths, batch).items():
                    running.append(Contender(name, command, flags.verbose))
                    # Asked before the next one starts, which would slow the matrix products that are measured here.
                    facts[name] = running[-1].ask('facts')
                check_parameters(facts)
                ours = facts[running[0].name]
                if ours is None:
                    raise SystemExit(f'Error: {running[0].error} --verbose shows more.')
                peak_tflops = peak(ours['device'])
                print(
                    f'\n{size} px, widths {widths[0]}/{widths[1]}, batch {batch}; {ours["parameters"]:,} parameters; '
                    f'{ours["device"]}, matrix product {ours["matrix_tflops"]:.3f} TFLOP/s in {ours["dtype"]}'
                    f'{f", peak {peak_tflops:.0f} in bfloat16" if peak_tflops else ""}'
                )
                if flags.check:
                    check_losses(running)
                seconds = compete(running, work, flags.repeats, flags.steps)
                reference = next((seconds[one.name] for one in running if one.name.startswith('PyTorch')), None)
                if reference and None in reference:
                    reference = None
                shared = {'forward_flops': ours['forward_flops'], 'peak_tflops': peak_tflops}
                rows = []
                for one in running:
                    rate = (facts[one.name] or ours).get('matrix_tflops') or ours['matrix_tflops']
                    known = shared | {'matrix_tflops': rate}
                    rows.append(describe(one, known, seconds[one.name], reference, work, batch))
            finally:
                for one in running:
                    one.close()
            print(
                f'{"":42}{"ms":>10}{"least":>10}{"most":>10}{"images/s":>10}{"TFLOP/s":>9}{"peak":>7}{"matrix":>9}'
                f'{"MB":>9}{"ratio":>8}'
            )
            print_rows(rows)
            table.append({'size': size, 'widths': widths, 'batch': batch, 'facts': facts, 'rows': rows})
    if on_cpu:
        print("\nMB: the process's largest resident memory, libraries included. ", end='')
    else:
        print('\nMB: the largest memory in use on the device. ', end='')
    print('ratio: of the time to that of the first PyTorch row, median over rounds.')
    if flags.out:
        with open(flags.out, 'w', encoding='utf-8') as file:
            json.dump({'work': work, 'threads': flags.threads, 'configurations': table}, file, indent=2)
