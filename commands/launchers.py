"""The cells of a sweep as processes: on this machine, or as jobs of a cluster.

    run_locally(cell_jobs, slots(1))                on this machine's devices, one to each run
    run_on_cluster(cell_jobs, workdir, parameters)      a SLURM job for each, through submitit

Both return {CellJob: how it ended}: an exit code, or a sentence where there is none; cells that were not started, or go
on elsewhere, are not in it.
"""

import dataclasses
import datetime
import fcntl
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

from commands import sweep_table
from draem_jax import preemption, run_directory
from draem_jax.errors import Preempted, UserError

_PROBE = 'import jax; print(jax.default_backend(), jax.local_device_count())'


@dataclasses.dataclass(frozen=True, eq=False)
class CellJob:
    """A cell, what its config.json is to hold (nested dict), and the two commands, lists of words, that make it."""

    cell: sweep_table.Cell
    config: dict
    train: list
    evaluate: list

    def __str__(self):
        return f'{self.cell.category}, seed {self.cell.seed}'

    @property
    def log(self):
        """Where its processes write to."""
        return self.cell.workdir / 'log.txt'

    @property
    def job_note(self):
        """Where the id of its last job stands."""
        return self.cell.workdir / 'slurm_job.txt'

    def is_trained(self):
        """Whether its training has ended, and was of the very config that is asked for now.

        With another one train.py has its say: it goes on to another length, refuses other values, or has nothing to do.
        """
        workdir = self.cell.workdir
        return run_directory.finished_step(workdir) is not None and run_directory.read_config(workdir) == self.config

    def is_evaluated(self):
        """Whether its last checkpoint has been evaluated in the way that is asked for now."""
        found = sweep_table.read_last_results(self.cell)
        return found is not None and found.get('options') == self.config['evaluation']

    def is_finished(self):
        return self.is_trained() and self.is_evaluated()

    def lacking_commands(self):
        """The commands still to be carried out; whether the second is, is only asked after the first."""
        if not self.is_trained():
            yield self.train
        if not self.is_evaluated():
            yield self.evaluate


class CellProcess:
    """A cell under way: one of its processes after the other.

    Each is in a session of its own, so that a Ctrl-C in the terminal reaches the sweep alone, which decides.

    Args:
        cell_job: the cell.
        environment: variables of its processes, beside those of this one.

    Raises:
        UserError: another process is at work on the cell, or nothing can be written to its folder.
    """

    def __init__(self, cell_job, environment=None):
        self._cell_job, self._start = cell_job, time.monotonic()
        self._environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})}
        self._commands = cell_job.lacking_commands()
        self._is_stopping = False
        self._log = open_log(cell_job)
        self._process = self._start_next()

    def poll(self):
        """None while it runs; then, once, the exit code of its last process, which is 42 where it was asked to stop."""
        code = self._process.poll() if self._process else 0
        if code is None:
            return None
        if code == 0 and not self._is_stopping:
            self._process = self._start_next()
            if self._process:
                return None
        if self._is_stopping and (code == -signal.SIGTERM or (code == 0 and not self._cell_job.is_finished())):
            code = Preempted.exit_code
        self._log.close()
        return code

    def stop(self):
        """Asks the process to save and leave, and starts no other."""
        if not self._is_stopping and self._process:
            self._process.send_signal(signal.SIGTERM)
        self._is_stopping = True

    def wait(self):
        """Returns when the process has ended. It may interrupt `poll` anywhere, for it takes no lock of Popen's."""
        try:
            if self._process:
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass

    def duration(self):
        return datetime.timedelta(seconds=round(time.monotonic() - self._start))

    def _start_next(self):
        command = next(self._commands, None)
        if command is None:
            return None
        self._log.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S")} {shlex.join(command)}\n')
        return subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def open_log(cell_job):
    """The log of a cell, to append to, locked for as long as this process or one that it started has it open.

    Should the sweep be killed while its processes live on, the next one thus keeps away from them.
    """
    try:
        log = cell_job.log.open('a', buffering=1)
    except OSError as error:
        raise UserError(f"Cannot write to '{cell_job.log}': {error.strerror}.") from error
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        log.close()
        raise UserError(f"Another process is at work on '{cell_job.cell.workdir}'.") from error
    except OSError:
        pass  # Not every file system has locks.
    return log


def ending(outcome):
    """How a cell ended, in words."""
    if isinstance(outcome, str):
        return outcome
    if outcome < 0:
        return f'killed by {signal.Signals(-outcome).name}'
    return {0: 'done', Preempted.exit_code: 'stopped'}.get(outcome, f'exit code {outcome}')


def describe(cell_job, outcome):
    """How a cell failed, in one line: where it has an exit code, with the last line of its log."""
    if isinstance(outcome, str):
        return outcome
    with cell_job.log.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors='replace').splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), '')
    return f'{ending(outcome)}: {last.removeprefix("Error: ")} ({cell_job.log})'


def say(*texts):
    print(time.strftime('%H:%M:%S'), *texts, flush=True)


def find_devices():
    """(platform, number of devices), asked of a process of its own: this one must not hold what the runs need."""
    environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    found = subprocess.run([sys.executable, '-c', _PROBE], env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        raise UserError(f'JAX finds no devices: {(found.stderr.strip().splitlines() or ["no reason given"])[-1]}')
    platform, count = found.stdout.split()[-2:]
    return platform, int(count)


def slots(devices_per_run, find_devices=find_devices, environment=os.environ):
    """For each of the runs that fit on this machine at the same time, the variables that give it devices of its own.

    Args:
        devices_per_run: 0 for all devices: one run at a time.
        find_devices: as the function above.
        environment: variables of this process.

    Returns:
        List of dicts.

    Raises:
        UserError: there are fewer devices, or they cannot be shared out.
    """
    if not devices_per_run:
        return [{}]
    platform, count = find_devices()
    if devices_per_run > count:
        raise UserError(f'--devices_per_run={devices_per_run}: this machine has {count} ({platform}).')
    starts = range(0, count - devices_per_run + 1, devices_per_run)
    if devices_per_run == count:
        return [{}]
    if platform == 'cpu':  # Virtual ones. Of a flag given twice the last counts.
        given = environment.get('XLA_FLAGS', '')
        flag = f'{given} --xla_force_host_platform_device_count={devices_per_run}'.strip()
        return [{'XLA_FLAGS': flag} for _ in starts]
    if platform == 'gpu':
        given = environment.get('CUDA_VISIBLE_DEVICES')
        ids = [one.strip() for one in given.split(',')] if given else [str(k) for k in range(count)]
        return [{'CUDA_VISIBLE_DEVICES': ','.join(ids[k : k + devices_per_run])} for k in starts]
    # The chips of one TPU host can be parted with TPU_VISIBLE_CHIPS, but the bounds and ports that go with it differ
    # between generations, as does the number of devices on a chip, and we had none to try it on.
    raise UserError(
        f'--devices_per_run={devices_per_run}: the {count} {platform} devices of this machine are not shared out '
        'between run_directory. Leave it out to run the cells one after the other, each on all of them.'
    )


def run_locally(cell_jobs, slots, every_seconds=0.1):
    """Runs cells on this machine, as many at the same time as there are slots.

    SIGTERM or SIGINT is passed on to what runs, which is waited for.
    """
    waiting, free, running, outcomes = list(cell_jobs), list(slots), {}, {}
    with preemption.watch() as interruption:
        while running or (waiting and not interruption):
            while waiting and free and not interruption:
                cell_job, slot = waiting.pop(0), free.pop(0)
                try:
                    running[cell_job] = CellProcess(cell_job, slot), slot
                    where = ' '.join(map('='.join, slot.items()))
                    say(f'{cell_job}: starts, {len(cell_jobs) - len(waiting)} of {len(cell_jobs)}.', where)
                except UserError as error:
                    outcomes[cell_job] = str(error)
                    free.append(slot)
            for cell_job, (run, slot) in list(running.items()):
                if interruption:
                    run.stop()
                if (code := run.poll()) is not None:
                    outcomes[cell_job] = code
                    free.append(slot)
                    del running[cell_job]
                    say(f'{cell_job}: {ending(code)} after {run.duration()}.')
            time.sleep(every_seconds)
    return outcomes


class ClusterTask:
    """A cell as a job. When SLURM is about to take its node, submitit calls `checkpoint` for what to queue instead."""

    _run = None

    def __call__(self, cell_job):
        try:
            self._run = CellProcess(cell_job)
        except UserError as error:
            return str(error)
        while (code := self._run.poll()) is None:
            time.sleep(0.5)
        return code

    def checkpoint(self, cell_job):
        import submitit

        if self._run:
            self._run.stop()
            self._run.wait()
        return submitit.helpers.DelayedSubmission(ClusterTask(), cell_job)


def run_on_cluster(cell_jobs, workdir, parameters, cluster='slurm', every_seconds=2):
    """Runs each cell as a job and waits for all; jobs that an earlier sweep has left there are not submitted again.

    SIGTERM or SIGINT ends the waiting, not the jobs.

    Args:
        cell_jobs: list of `CellJob`.
        workdir: directory of the sweep.
        parameters: dict, as submitit's `AutoExecutor.update_parameters` takes them.
        cluster: as submitit knows it.
        every_seconds: how often to look.
    """
    import submitit  # For those who have a cluster.

    if cluster == 'slurm' and not shutil.which('sbatch'):
        raise UserError("--launcher=slurm: no 'sbatch' on this machine. Start the sweep where jobs are submitted.")
    # Jobs import this file, wherever they start.
    packages = str(pathlib.Path(__file__).resolve().parent.parent)
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [packages, os.environ.get('PYTHONPATH')]))
    # A time limit that is up leaves a checkpoint: as often as it takes.
    executor = submitit.AutoExecutor(pathlib.Path(workdir) / 'jobs' / '%j', cluster=cluster, slurm_max_num_timeout=1000)
    executor.update_parameters(**parameters)
    jobs = rejoin(cell_jobs, executor.folder)
    fresh = [cell_job for cell_job in cell_jobs if cell_job not in jobs]
    for cell_job, job in zip(fresh, executor.map_array(ClusterTask(), fresh) if fresh else [], strict=True):
        run_directory.write_text(cell_job.job_note, job.job_id)
        say(f'{cell_job}: submitted, job {job.job_id}.')
        jobs[cell_job] = job
    outcomes = {}
    with preemption.watch() as interruption:
        while len(outcomes) < len(jobs) and not interruption:
            time.sleep(every_seconds)
            for cell_job in [cell_job for cell_job, job in jobs.items() if cell_job not in outcomes and job.done()]:
                outcomes[cell_job] = outcome_of(jobs[cell_job])
                say(f'{cell_job}: {ending(outcomes[cell_job])}.')
    if interruption:
        print('The jobs go on; scancel ends them.')
    return outcomes


def rejoin(cell_jobs, folder):
    """{CellJob: job} of the cells that SLURM still has from an earlier sweep."""
    import submitit

    jobs = {}
    for cell_job in cell_jobs:
        if cell_job.job_note.is_file():
            job = submitit.SlurmJob(folder, cell_job.job_note.read_text())
            if not job.done(force_check=True):
                say(
                    f'{cell_job}: waits for job {job.job_id}. Should SLURM not know it any more, '
                    f"delete '{cell_job.job_note}'."
                )
                jobs[cell_job] = job
    return jobs


def outcome_of(job):
    """What a job returned, or a sentence where it ended without."""
    try:
        return job.result()
    except Exception as error:  # Whatever the job raised, or that it left nothing behind.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Job {job.job_id} ({job.state}): {lines[-1].strip()} '{job.paths.stderr}'"
