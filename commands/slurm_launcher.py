"""Runs the cells of a sweep on a cluster: each is a SLURM job, which submitit submits."""

import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

from commands.cell_process import CellProcess, Outcome, ending, say
from commands.cells import CellJob
from draem_jax import preemption, run_directory
from draem_jax.errors import UserError

# submitit.Job. Only those who have a cluster need submitit, so it is imported where it is used.
Job = Any

_ROOT = pathlib.Path(__file__).resolve().parent.parent


class ClusterTask:
    """What a job does with its cell. When SLURM is about to take the node, submitit asks `checkpoint` what to queue."""

    _process: CellProcess | None = None

    def __call__(self, cell_job: CellJob) -> Outcome:
        try:
            self._process = CellProcess(cell_job)
        except UserError as error:
            return str(error)
        while (code := self._process.poll()) is None:
            time.sleep(0.5)
        return code

    def checkpoint(self, cell_job: CellJob) -> Any:
        """Lets the cell save and leave; returns the submission that goes on with it."""
        import submitit

        if self._process:
            self._process.stop()
            self._process.wait()
        return submitit.helpers.DelayedSubmission(ClusterTask(), cell_job)


def run_on_cluster(
    cell_jobs: Sequence[CellJob],
    workdir: str | os.PathLike[str],
    parameters: dict[str, Any],
    cluster: str = 'slurm',
    every_seconds: float = 2,
) -> dict[CellJob, Outcome]:
    """Runs each cell as a job and waits for all; jobs that an earlier sweep has left there are not submitted again.

    SIGTERM or SIGINT ends the waiting, not the jobs.

    Args:
        cell_jobs: the cells.
        workdir: directory of the sweep.
        parameters: as submitit's `AutoExecutor.update_parameters` takes them.
        cluster: as submitit knows it.
        every_seconds: how often to look.

    Returns:
        How each cell ended; cells whose jobs go on are left out.
    """
    import submitit

    if cluster == 'slurm' and not shutil.which('sbatch'):
        raise UserError("--launcher=slurm: no 'sbatch' on this machine. Start the sweep where jobs are submitted.")
    # Jobs import this file, in whatever folder they start.
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get('PYTHONPATH')]))
    # A job saves when its time limit is up, so it may be queued again as often as it takes.
    executor = submitit.AutoExecutor(pathlib.Path(workdir) / 'jobs' / '%j', cluster=cluster, slurm_max_num_timeout=1000)
    executor.update_parameters(**parameters)
    jobs = rejoin(cell_jobs, executor.folder)
    fresh = [cell_job for cell_job in cell_jobs if cell_job not in jobs]
    for cell_job, job in zip(fresh, executor.map_array(ClusterTask(), fresh) if fresh else [], strict=True):
        run_directory.write_text(cell_job.slurm_note, job.job_id)
        say(f'{cell_job}: submitted, job {job.job_id}.')
        jobs[cell_job] = job
    outcomes: dict[CellJob, Outcome] = {}
    with preemption.watch() as interruption:
        while len(outcomes) < len(jobs) and not interruption:
            time.sleep(every_seconds)
            for cell_job in [cell_job for cell_job, job in jobs.items() if cell_job not in outcomes and job.done()]:
                outcomes[cell_job] = outcome_of(jobs[cell_job])
                say(f'{cell_job}: {ending(outcomes[cell_job])}.')
    if interruption:
        print('The jobs go on; scancel ends them.')
    return outcomes


def rejoin(cell_jobs: Sequence[CellJob], folder: pathlib.Path) -> dict[CellJob, Job]:
    """The jobs that SLURM still has from an earlier sweep, by cell."""
    import submitit

    jobs = {}
    for cell_job in cell_jobs:
        if cell_job.slurm_note.is_file():
            job: Job = submitit.SlurmJob(folder, cell_job.slurm_note.read_text())
            if not job.done(force_check=True):
                say(
                    f'{cell_job}: waits for job {job.job_id}. Should SLURM not know it any more, '
                    f"delete '{cell_job.slurm_note}'."
                )
                jobs[cell_job] = job
    return jobs


def outcome_of(job: Job) -> Outcome:
    """What a job returned, or a sentence where it returned nothing."""
    try:
        return job.result()
    except Exception as error:  # The job's own error, or submitit's where the job has left no result.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Job {job.job_id} ({job.state}): {lines[-1].strip()} '{job.paths.stderr}'"
