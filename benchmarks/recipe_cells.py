"""The cells of `benchmarks.recipes`: processes that train, measure and test, one cell to a core, and what they cost.

This process does without JAX, which would take time from the cells.
"""

import contextlib
import dataclasses
import datetime
import os
import pathlib
import queue
import shlex
import signal
import subprocess
import threading
import time

from benchmarks import recipe_cost
from commands.cell_process import say
from draem_jax import preemption, run_directory
from draem_jax.errors import Preempted, UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
_FIRST_STEP = b'\nFirst step after'  # what train.py says once it has read, compiled and made a step
TEST_FOLDER = 'test'  # of a run; takes what evaluate.py writes
_MEASURED = 'measured.json'
_TEST_METRICS = ('image_auroc', 'image_ap', 'pixel_auroc', 'pixel_ap', 'aupro')


class CellError(Exception):
    """The message says why, in one line."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One training of the grid.

    Attributes:
        facts: what the results say about it: recipe, set, seed, ...
        workdir: directory of its run, which also takes log.txt.
        record: the JSON file of its results.
        train, measure, evaluate: its commands; the second writes measured.json, the third to `TEST_FOLDER`.
    """

    facts: dict
    workdir: pathlib.Path
    record: pathlib.Path
    train: list[str]
    measure: list[str]
    evaluate: list[str]

    def __str__(self):
        return '{set}, {recipe}, seed {seed}'.format(**self.facts)

    @property
    def log(self):
        return self.workdir / 'log.txt'

    def read(self):
        return run_directory.read_json(self.record, 'Delete it, and the cell is measured again.')

    def differing_facts(self):
        """How the facts of results on disk differ from these, in words; '' where they do not."""
        record = self.read()
        pairs = [(name, record.get(name), now) for name, now in self.facts.items()]
        return ', '.join(f'{name} {before}, not {now}' for name, before, now in pairs if before != now)


@dataclasses.dataclass(frozen=True)
class Slot:
    """What a cell has for itself: a core, or with None any, and environment variables."""

    core: int | None
    environment: dict


def core_slots(count):
    """A slot for each core that this process may use, or `count` of them; further ones share the cores."""
    cores = sorted(os.sched_getaffinity(0))
    return [Slot(cores[index % len(cores)], {'JAX_PLATFORMS': 'cpu'}) for index in range(count or len(cores))]


def gpu_slots(count):
    """Slots that share the memory of one GPU."""
    memory = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false', 'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{0.9 / count:.3f}'}
    return [Slot(None, memory)] * count


def launch(cells, work, slots):
    """Does `work(cell, slot, stop)` for each cell, one at a time in each slot; a line says how each starts and ends.

    SIGTERM and SIGINT set `stop`, for which the work looks; the function returns when all under way has ended.

    Returns:
        The exit code: 1 if a cell failed. The others go on.

    Raises:
        Preempted: a signal asked to stop, and cells are left.
    """
    waiting, stop = queue.SimpleQueue(), threading.Event()
    for cell in cells:
        waiting.put(cell)
    seconds, failed = [], []

    def serve(slot):
        if slot.core is not None:
            os.sched_setaffinity(0, {slot.core})  # Of this thread alone, and of the processes that it starts.
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                cell, start = waiting.get_nowait(), time.monotonic()
                say(f'{cell}: starts.')
                try:
                    said = work(cell, slot, stop)
                    seconds.append(time.monotonic() - start)
                    left = len(cells) - len(seconds) - len(failed)
                    rest = _duration(sum(seconds) / len(seconds) * left / len(slots))
                    say(f'{cell}: {said}, after {_duration(seconds[-1])}. {left} left, about {rest}.')
                except Preempted:
                    say(f'{cell}: stopped.')
                except Exception as error:  # Whatever it is, the others go on.
                    failed.append(cell)
                    reason = error if isinstance(error, CellError | UserError) else repr(error)
                    say(f'Error: {cell}: {reason} ({cell.log})')

    threads = [threading.Thread(target=serve, args=[slot]) for slot in slots]
    with preemption.watch() as interruption:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if interruption:
                stop.set()
            time.sleep(0.05)
    left = len(cells) - len(seconds) - len(failed)
    if left:
        raise Preempted(f'Stopped with {left} of {len(cells)} cells left. Start again to go on.')
    return int(bool(failed))


def train_and_measure(cell, slot, stop):
    """Trains a cell unless its training has ended, measures it and writes its results; returns a few words on them."""
    cell.workdir.mkdir(parents=True, exist_ok=True)
    if not run_directory.is_finished(cell.workdir):
        train(cell, slot, stop)
    run(cell, cell.measure, slot, stop)
    record = make_record(cell)
    run_directory.write_json(cell.record, record)
    return 'held-out image AUROC {image_auroc:.3f}, pixel AP {pixel_ap:.3f}'.format(**record['held_out'])


def train(cell, slot, stop):
    """Runs train.py, and notes what it costs as a further part of spent.json (`benchmarks.recipe_cost`)."""
    parts = recipe_cost.read_parts(cell.workdir)
    part = {'commit': recipe_cost.commit(), 'start': time.time(), 'steps': {}}
    begin, logged = cell.log.stat().st_size if cell.log.exists() else 0, _logged_steps(cell)

    def save():
        recipe_cost.write_parts(cell.workdir, [*parts, part])

    def look(pid):
        nonlocal logged
        before, logged = logged, _logged_steps(cell)
        new = {f'{step}' for step in logged - before}
        if not new and ('start_up_core_seconds' in part or _FIRST_STEP not in _read_from(cell.log, begin)):
            return
        seconds = recipe_cost.core_seconds_so_far(pid)
        part.setdefault('start_up_core_seconds', seconds)
        part['steps'] |= dict.fromkeys(new, seconds)
        save()

    def note_end(core_seconds):
        part.update(end=time.time(), core_seconds=core_seconds)
        save()

    save()  # At once: this process may be killed.
    run(cell, cell.train, slot, stop, look, note_end)


def run(cell, command, slot, stop, look=None, note_end=None):
    """Runs a command of a cell, whose output goes to its log.

    Args:
        cell: the cell.
        command: list of words.
        slot: what the process has for itself.
        stop: an event; once it is set, the process gets a SIGTERM.
        look: called with the id of the process, four times a second while it runs.
        note_end: called with all processor seconds of the process.

    Raises:
        CellError: it ended with another code than 0.
        Preempted: it was stopped.
    """
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **slot.environment}
    with cell.log.open('ab', buffering=0) as log:
        log.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S")} {shlex.join(command)}\n'.encode())
        begin = log.tell()
        # In a session of its own: a Ctrl-C in the terminal reaches this process alone, which passes it on.
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    asked = False
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if stop.is_set() and not asked:
            os.kill(process.pid, signal.SIGTERM)
            asked = True
        if look:
            look(process.pid)
        time.sleep(0.25)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again.
    if note_end:
        note_end(usage.ru_utime + usage.ru_stime)
    if process.returncode == Preempted.exit_code or (asked and process.returncode == -signal.SIGTERM):
        raise Preempted('stopped')
    if process.returncode:
        lines = _read_from(cell.log, begin).decode(errors='replace').replace('\r', '\n').splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')
        raise CellError(f'exit code {process.returncode}: {last.removeprefix("Error: ")}')


def measure(workdir):
    """Measures all checkpoints of a run on held-out images with drawn defects; writes measured.json."""
    from benchmarks import held_out_defects  # It imports JAX.
    from draem_jax import devices

    devices.cache_compilations()
    curve = list(held_out_defects.measure_steps(workdir))
    device = None if devices.on_cpu() else devices.describe()
    run_directory.write_json(pathlib.Path(workdir) / _MEASURED, {'device': device, 'curve': curve})


def make_record(cell):
    """The results of a cell whose run is trained and measured."""
    parts = recipe_cost.read_parts(cell.workdir)
    if not parts:
        raise CellError(f"no spent.json in '{cell.workdir}': nobody knows what this run cost. Move it away")
    measured = run_directory.read_json(cell.workdir / _MEASURED, 'Delete it and start again.')
    curve = []
    for line in measured['curve']:
        names = ('image_auroc', 'pixel_auroc', 'pixel_ap')
        seconds = recipe_cost.training_core_seconds(parts, line['step'])
        curve.append({'step': line['step'], 'core_seconds': seconds, **{name: line[name] for name in names}})
    return {
        **cell.facts,
        'core_seconds': sum(part['core_seconds'] for part in parts),
        'start_up_core_seconds': sum(recipe_cost.start_up(part) for part in parts),
        'wall_seconds': sum(part['end'] - part['start'] for part in parts),
        'has_guessed_seconds': any(part.get('is_guess', False) for part in parts),
        'machine': recipe_cost.machine(measured['device']),
        'commit': '; '.join(dict.fromkeys(part['commit'] for part in parts)),
        'curve': curve,
        'held_out': {**curve[-1], 'image_auroc_by_kind': measured['curve'][-1]['image_auroc_by_kind']},
        'test': None,
    }


def test(cell, slot, stop):
    """Evaluates a cell's last checkpoint on the test images and adds that to its results; returns a few words."""
    record = cell.read()
    if not run_directory.is_finished(cell.workdir):
        raise CellError(f"its run is not in '{cell.workdir}': --test takes the --workdir that it was trained in")
    step = run_directory.finished_step(cell.workdir)
    run(cell, cell.evaluate, slot, stop)
    folder = run_directory.evaluation_folder(cell.workdir / TEST_FOLDER, step)
    results = run_directory.read_json(folder / 'results.json', 'Delete it and start again.')
    record['test'] = {name: results['metrics'][name] for name in _TEST_METRICS}
    run_directory.write_json(cell.record, record)
    return 'test image AUROC {image_auroc}, pixel AP {pixel_ap}'.format(**record['test'])


def _logged_steps(cell):
    return {line['step'] for line in run_directory.read_training_log(cell.workdir)}


def _read_from(path, begin):
    with path.open('rb') as file:
        file.seek(begin)
        return file.read()


def _duration(seconds):
    return datetime.timedelta(seconds=round(seconds))
