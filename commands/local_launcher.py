"""Runs the cells of a sweep on this machine: `run_locally(cell_jobs, slots(1))` gives each one of its devices."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from commands.cell_process import CellProcess, Outcome, ending, say
from commands.cells import CellJob
from draem_jax import preemption
from draem_jax.errors import UserError

# Environment variables that give a run devices of its own.
Slot = dict[str, str]

_PROBE = 'import jax; print(jax.default_backend(), jax.local_device_count())'


def find_devices() -> tuple[str, int]:
    """(platform, number of devices) of this machine.

    A process of its own looks: JAX in this one would hold the devices that the runs need.
    """
    environment = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
    probe = subprocess.run([sys.executable, '-c', _PROBE], env=environment, capture_output=True, text=True, check=False)
    if probe.returncode:
        raise UserError(f'JAX finds no devices: {(probe.stderr.strip().splitlines() or ["no reason given"])[-1]}')
    platform, count = probe.stdout.split()[-2:]
    return platform, int(count)


def slots(
    devices_per_run: int,
    find_devices: Callable[[], tuple[str, int]] = find_devices,
    environment: Mapping[str, str] = os.environ,
) -> list[Slot]:
    """A slot for each of the runs that fit on this machine at the same time.

    Args:
        devices_per_run: 0 for all devices: one run at a time.
        find_devices: as the function above.
        environment: variables of this process.

    Raises:
        UserError: there are fewer devices, or they cannot be shared out.
    """
    if not devices_per_run:
        return [{}]
    platform, count = find_devices()
    if devices_per_run > count:
        raise UserError(f'--devices_per_run={devices_per_run}: this machine has {count} ({platform}).')
    if devices_per_run == count:
        return [{}]
    starts = range(0, count - devices_per_run + 1, devices_per_run)
    if platform == 'cpu':  # These are virtual devices. XLA takes the last of a flag that is given twice.
        given = environment.get('XLA_FLAGS', '')
        flag = f'{given} --xla_force_host_platform_device_count={devices_per_run}'.strip()
        return [{'XLA_FLAGS': flag} for _ in starts]
    if platform == 'gpu':
        visible = environment.get('CUDA_VISIBLE_DEVICES')
        ids = [one.strip() for one in visible.split(',')] if visible else [str(k) for k in range(count)]
        return [{'CUDA_VISIBLE_DEVICES': ','.join(ids[k : k + devices_per_run])} for k in starts]
    # TPU_VISIBLE_CHIPS can divide the chips of one TPU host. The bounds and ports that it needs beside it, and the
    # number of devices on a chip, differ between generations, and we had none to try it on.
    raise UserError(
        f'--devices_per_run={devices_per_run}: the {count} {platform} devices of this machine are not shared out '
        'between runs. Leave it out to run the cells one after the other, each on all of them.'
    )


def run_locally(
    cell_jobs: Sequence[CellJob], slots: Sequence[Slot], every_seconds: float = 0.1
) -> dict[CellJob, Outcome]:
    """Runs cells on this machine, as many at the same time as there are slots.

    SIGTERM and SIGINT are passed on to the cells under way; the function returns when those have ended.

    Returns:
        How each cell ended; cells that were not started are left out.
    """
    waiting, free = list(cell_jobs), list(slots)
    running: dict[CellJob, tuple[CellProcess, Slot]] = {}
    outcomes: dict[CellJob, Outcome] = {}
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
            for cell_job, (process, slot) in list(running.items()):
                if interruption:
                    process.stop()
                if (code := process.poll()) is not None:
                    outcomes[cell_job] = code
                    free.append(slot)
                    del running[cell_job]
                    say(f'{cell_job}: {ending(code)} after {process.duration()}.')
            time.sleep(every_seconds)
    return outcomes
