"""The part that `train_step` and `inference` share: processes that do the same work, ours and PyTorch's.

Each contender is a process of its own, so that no library meets another's threads and memory. On a CPU all contenders
do a few steps one after the other, again and again, so that other work on the machine slows all of them alike. On an
accelerator a contender needs the memory for itself: whole runs take turns, A B A B, each from the start of a process to
its end.

This process does without JAX, which would take memory from the contenders.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

from benchmarks import contenders, kernels, rows, serving
from draem_jax import run_directory

CPU_SIZES, ACCELERATOR_SIZES = '64:16/8,128:32/16', '256:128/64'
CPU_VARIANTS = 'float32,float32+channels_last,bfloat16+channels_last'
CUDA_VARIANTS = 'bfloat16+channels_last+compile,bfloat16+channels_last,tf32+channels_last,tf32,float32'

_PROFILED_STEPS = 5


class Results:
    """A dict that `save` writes to a JSON file: all of it, or what was there before stays."""

    def __init__(self, path, **start):
        self.path, self.data = path, start
        self.save()

    def save(self):
        if self.path:
            run_directory.write_text(self.path, json.dumps(self.data, indent=2))


def parse_sizes(text):
    """'64:16/8,128:32/16' -> [(64, 16, 8), (128, 32, 16)]: pixels and the widths of the two networks."""
    sizes = [tuple(map(int, part.replace('/', ':').split(':'))) for part in text.split(',')]
    if any(len(numbers) != 3 for numbers in sizes):
        raise ValueError(text)
    return sizes


class Contest:
    """Measures configurations one after the other, and keeps what it knows on disk.

    Args:
        work: 'train' or 'predict'.
        flags: of the command line.
        device: from `contenders.look_at_device`.
        clock: ends it.
        results: where everything goes.
    """

    def __init__(self, work, flags, device, clock, results):
        self._work, self._flags, self._device, self._clock, self._results = work, flags, device, clock, results
        self._ceilings = results.data['ceilings']

    def start(self, entry):
        """A process of the entry."""
        return serving.Contender(
            entry.command, self._clock, 60 * self._flags.patience, entry.environment, self._flags.verbose
        )

    def measure(self, size, widths, batch):
        """Measures one configuration; prints its table and saves its rows, however it ends.

        Raises:
            TimeOver: the clock ran down.
        """
        print(f'\n{size} px, widths {widths[0]}/{widths[1]}, batch {batch}', flush=True)
        entries = contenders.make_entries(self._flags, self._device, size, widths, batch)
        configuration = {'size': size, 'widths': widths, 'batch': batch, 'facts': {}, 'rows': []}
        self._results.data['configurations'].append(configuration)

        def save():
            configuration['facts'] = {entry.name: entry.facts for entry in entries}
            configuration['rows'] = rows.make_rows(
                entries, self._work, batch, self._ceilings, are_paired=not self._flags.turns
            )
            self._results.save()

        run = self._run_by_turns if self._flags.turns else self._run_interleaved
        try:
            run(entries, save)
        finally:
            save()
            rows.print_rows(configuration['rows'])

    def _run_by_turns(self, entries, save):
        rounds = math.ceil(self._flags.repeats / self._flags.turns)
        for turn in range(self._flags.turns):
            for entry in entries:
                if entry.error:
                    continue
                with self.start(entry) as process:
                    self._introduce(entry, process, entries)
                    self._warm_up(entry, process)
                    before = len(entry.seconds)
                    while len(entry.seconds) < before + rounds and self._one_round(entry, process):
                        save()
                    entry.memory = process.ask('memory') or entry.memory
                    save()
                    new = entry.seconds[before:]
                    said = f'{1e3 * statistics.median(new):.2f} ms' if new else entry.error
                    print(f'  turn {turn + 1}: {entry.name}: {said}', flush=True)
                    if not entry.error:
                        self._find_ceilings(entry, process)
                        self._profile(entry, process)
                    save()

    def _run_interleaved(self, entries, save):
        with contextlib.ExitStack() as stack:
            running = []
            for entry in entries:
                process = stack.enter_context(self.start(entry))
                running.append((entry, process))
                self._introduce(entry, process, entries)
                # Before the next one starts, which would slow the products that are measured.
                self._find_ceilings(entry, process)
            for entry, process in running:
                self._warm_up(entry, process)
            for _ in range(self._flags.repeats):
                for entry, process in running:
                    self._one_round(entry, process)
                save()
            for entry, process in running:
                if not entry.error:
                    entry.memory = process.ask('memory') or {}
                    self._profile(entry, process)

    def _introduce(self, entry, process, entries):
        entry.facts = entry.facts or process.ask('describe')
        entry.error, entry.detail = process.error, process.detail
        ours = next((other.facts for other in entries if other.facts), None)
        if entry.facts and entry.facts['parameters'] != ours['parameters']:
            entry.error = f'{entry.facts["parameters"]:,} parameters, not {ours["parameters"]:,} as the first'

    def _warm_up(self, entry, process):
        """Some steps that do not count: they compile, and allocate memory."""
        if not entry.error:
            reply = process.ask('warm_up', self._work, self._flags.steps)
            entry.error, entry.detail = process.error, process.detail
            if reply:
                entry.warm_up.append(reply['seconds'])

    def _one_round(self, entry, process):
        """Whether a round of steps was measured."""
        if not entry.error:
            reply = process.ask(self._work, self._flags.steps)
            entry.error, entry.detail = process.error, process.detail
            if reply:
                entry.seconds.append(reply['seconds'])
        return not entry.error

    def _find_ceilings(self, entry, process):
        if entry.error or not entry.is_ours or entry.precision in self._ceilings:
            return
        found = process.ask('ceilings')
        if found is None:
            print(f'  {entry.name}: no ceilings: {process.error}', flush=True)
            return
        self._ceilings[entry.precision] = found
        print(
            f'  {entry.facts["device"]}: matrix product {found["matrix_tflops"]:.3f} TFLOP/s in {entry.precision}, '
            f'memory {found["copy_tbps"]:.3f} TB/s',
            flush=True,
        )

    def _profile(self, entry, process):
        if not self._flags.profile or not entry.is_ours or entry.profile:
            return
        size, batch = (entry.facts[name] for name in ('size', 'batch'))
        name = f'{size}px_batch{batch}_{entry.name.removeprefix("draem_jax ").replace(" ", "_")}'
        folder = os.path.abspath(os.path.join(self._flags.profile, name))
        entry.profile = process.ask('profile', _PROFILED_STEPS, folder)
        if entry.profile is None:
            print(f'  {entry.name}: no profile: {process.error}', flush=True)
            return
        ceilings = self._ceilings.get(entry.precision)
        for row in entry.profile['roofline'] if ceilings else ():
            row['least_ms'] = rows.least_ms(row, ceilings['matrix_tflops'], ceilings['copy_tbps'])
        print(f'\n{entry.name}, {size} px, batch {batch}: {entry.profile["step_ms"]:.2f} ms a step while traced')
        print(f'  trace: {entry.profile["trace"]}')
        kernels.print_table(entry.profile)

    def check(self, size, widths, batch):
        """Compares three training steps with PyTorch, both in full float32; returns what is wrong, or None.

        Raises:
            TimeOver: the clock ran down.
        """
        print(f'\nCheck: losses of three steps from the same weights, {size} px, batch {batch}, full float32')
        pair = [
            contenders.our_entry(self._flags, self._device, 'float32_highest', size, widths, batch),
            contenders.pytorch_entry(self._flags, self._device, 'float32', size, widths, batch),
        ]
        replies, error = [], None
        with tempfile.TemporaryDirectory() as folder:
            for entry in pair:
                with self.start(entry) as process:
                    replies.append(process.ask('losses', os.path.join(folder, 'start.npz')))
                if process.error:
                    error = f'{entry.name}: {process.error}'
                    break
        if not error:
            lines, error = rows.compare_losses(*replies)
            print('\n'.join(lines), flush=True)
        report = {'size': size, 'widths': widths, 'batch': batch, 'error': error}
        report |= dict(zip(('ours', 'pytorch'), replies, strict=False))
        self._results.data['checks'].append(report)
        self._results.save()
        if error:
            print(f'The check failed: {error}', flush=True)
        return error


def parse_flags(work, doc):
    """The command line, complete but for what depends on the device."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sizes', help=f'pixels:widths; {CPU_SIZES} on a CPU, {ACCELERATOR_SIZES} elsewhere')
    parser.add_argument('--batch', help='images a step; 8 on a CPU, 8,16,32,64 elsewhere')
    parser.add_argument(
        '--dtype',
        help=f'of ours: {", ".join(contenders.DTYPES)}; float32 on a CPU, bfloat16,float32 elsewhere. float32 is what '
        'JAX makes of it unless told otherwise, TF32 on recent cards of NVIDIA, and is named so',
    )
    parser.add_argument('--remat', action='store_true', help='ours with model.remat: less memory, more time')
    parser.add_argument(
        '--pytorch', help='a Python that has torch, or "python" for this one; without it, ours runs alone'
    )
    parser.add_argument('--variants', help='of PyTorch: float32, tf32 or bfloat16, +channels_last, +compile')
    parser.add_argument(
        '--threads', type=int, default=0, help='pin all contenders to this many cores of a CPU; 0: do not pin'
    )
    parser.add_argument('--repeats', type=int, default=15, help='rounds of each contender, whose median counts')
    parser.add_argument('--steps', type=int, default=3, help='steps in each round')
    parser.add_argument(
        '--turns',
        type=int,
        help='whole runs of each contender, one contender at a time, which share the rounds; 2 on accelerators. '
        '0, on a CPU: all run, and take turns in every round',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=0,
        help='end after so long with what there is; the order is that of --sizes, --batch, --dtype, --variants. '
        '0: no limit',
    )
    parser.add_argument(
        '--patience', type=float, default=15, help='minutes within which a contender answers, or is out'
    )
    parser.add_argument(
        '--check', action='store_true', help='compare the losses of ours and of PyTorch in full float32 first'
    )
    if work == 'train':
        parser.add_argument(
            '--profile',
            nargs='?',
            const='trace',
            help='trace a few of our steps into this folder ("trace" if none is named), and show the kernels',
        )
    parser.add_argument('--verbose', action='store_true', help='show what the contenders print')
    parser.add_argument('--out', help='a JSON file for the figures, complete after every round')
    flags = parser.parse_args()
    flags.profile = getattr(flags, 'profile', None)
    if flags.check and not flags.pytorch:
        parser.error('--check compares with PyTorch: pass --pytorch as well.')
    if flags.out and not os.path.isdir(os.path.dirname(flags.out) or '.'):
        parser.error(f'--out={flags.out}: there is no such folder.')
    unknown = [dtype for dtype in (flags.dtype or 'float32').split(',') if dtype not in contenders.DTYPES]
    if unknown:
        parser.error(f'--dtype={flags.dtype}: {unknown[0]} is none of {", ".join(contenders.DTYPES)}.')
    try:
        flags.parsed_sizes = parse_sizes(flags.sizes) if flags.sizes else None
    except ValueError:
        parser.error(f'--sizes={flags.sizes}: expected pixels:widths as in {CPU_SIZES}.')
    return flags


def check_pytorch(python):
    """Raises SystemExit unless a Python has torch and NumPy. Without importing them: that takes seconds."""
    code = 'import importlib.util as u; print(*[n for n in ("torch", "numpy") if not u.find_spec(n)])'
    try:
        done = subprocess.run([python, '-c', code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f'Error: --pytorch={python}: expected a Python that has torch: {error}') from None
    if done.stdout.strip():
        raise SystemExit(f'Error: {python} has no {done.stdout.strip().replace(" ", ", no ")}: install it there.')


def main(work, doc):
    """Measures 'train' or 'predict' as the command line says. Ends with 1 if a check failed or nothing was measured."""
    flags = parse_flags(work, doc)
    clock = serving.Clock(flags.minutes)
    serving.end_on_signals()
    if flags.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.threads])  # Children inherit it.
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '0')
    if flags.pytorch:
        check_pytorch(sys.executable if flags.pytorch == 'python' else flags.pytorch)
    device = contenders.look_at_device()
    on_cpu = device['backend'] == 'cpu'
    if 'tf32' in (flags.dtype or '').split(',') and not contenders.has_tf32(device):
        raise SystemExit(f'Error: --dtype=tf32: {device["kind"]} has no TF32; take float32.')
    sizes = flags.parsed_sizes or parse_sizes(CPU_SIZES if on_cpu else ACCELERATOR_SIZES)
    batches = [int(batch) for batch in (flags.batch or ('8' if on_cpu else '8,16,32,64')).split(',')]
    flags.dtype = flags.dtype or ('float32' if on_cpu else 'bfloat16,float32')
    flags.variants = flags.variants or (CPU_VARIANTS if on_cpu else CUDA_VARIANTS)
    flags.turns = (0 if on_cpu else 2) if flags.turns is None else flags.turns

    results = Results(
        flags.out,
        work=work,
        command=sys.argv[1:],
        threads=flags.threads,
        device=device,
        checks=[],
        ceilings={},
        configurations=[],
        unfinished=[[*numbers, batch] for numbers in sizes for batch in batches],
    )
    contest = Contest(work, flags, device, clock, results)
    failed = False
    try:
        for size, *widths in sizes:
            if flags.check:
                failed |= contest.check(size, widths, batches[0]) is not None
            for batch in batches:
                contest.measure(size, widths, batch)
                results.data['unfinished'].remove([size, *widths, batch])
                results.save()
    except serving.TimeOver:
        left = '; '.join(f'{size} px, {a}/{b}, batch {batch}' for size, a, b, batch in results.data['unfinished'])
        print(f'\nThe {flags.minutes:g} minutes are over. Not measured, or not to the end: {left}')
    memory = "the process's largest resident memory, libraries included" if on_cpu else 'the most in use on the device'
    print(f"\nMB: {memory}. peak: the maker's figure for bfloat16; matrix: products measured here in that precision.")
    for check in results.data['checks']:
        if check['error']:
            print(f'The check at {check["size"]} px failed: {check["error"]}')
    measured = any('median' in row for each in results.data['configurations'] for row in each['rows'])
    sys.exit(int(failed or not measured))
