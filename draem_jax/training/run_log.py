"""What a training run says: log lines, a progress bar, `metrics.jsonl`, TensorBoard."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from draem_jax import run_directory
from draem_jax.errors import UserError


class RunLog:
    """Writes scalars and pictures of a run to every place where somebody looks; use it in a `with` block.

    Args:
        workdir: the run's directory.
        first_step: the step a resumed run goes on from; lines of later steps are dropped, because those are made again,
            and so are lines that cannot be understood.
        is_silent: write nothing, because another process writes for all.
    """

    def __init__(self, workdir: str | os.PathLike[str], first_step: int = 0, *, is_silent: bool = False) -> None:
        self._is_silent = is_silent
        if is_silent:
            return
        self._path = pathlib.Path(workdir) / 'metrics.jsonl'
        lines = [line for line in run_directory.read_training_log(workdir) if line['step'] <= first_step]
        try:
            if os.path.lexists(self._path):
                run_directory.write_text(self._path, ''.join(json.dumps(line) + '\n' for line in lines))
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot write '{self._path}': {error.strerror}.") from error
        # Not a SummaryWriter: its thread dies on a full disk, and then later calls would wait for ever.
        self._board = EventsWriter(str(self._path.with_name('events')))
        # This makes TensorBoard hide what earlier files hold from this step on.
        self._show(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_silent:
            self._board.close()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers by name: a line on the screen, a line of JSON, a point on each curve."""
        if self._is_silent:
            return
        values = {name: float(value) for name, value in values.items()}
        with self._path.open('a') as file:
            finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
            file.write(json.dumps({'step': step, **finite}, allow_nan=False) + '\n')
        for name, value in values.items():
            self._show(step, summary=summary.scalar(name, value))
        self._board.flush()
        tqdm.write(f'step {step}  ' + '  '.join(f'{name} {value:.4g}' for name, value in values.items()))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows an RGB image, uint8 [H, W, 3], in TensorBoard."""
        if self._is_silent:
            return
        self._show(step, summary=summary.image(name, image, dataformats='HWC'))
        self._board.flush()

    def _show(self, step: int, **content: Any) -> None:
        self._board.write_event(Event(wall_time=time.time(), step=step, **content))


def progress_bar(steps_done: int, total_steps: int, *, is_silent: bool = False) -> tqdm:
    """A bar over all steps of the run, shown on a terminal only."""
    disable = True if is_silent else None
    return tqdm(initial=steps_done, total=total_steps, unit='step', disable=disable, dynamic_ncols=True)


def describe(values: Mapping[str, Any]) -> str:
    """How fast the training goes and where it is, in a few words for the progress bar."""
    share = f', MFU {100 * values["mfu"]:.0f} %' if 'mfu' in values else ''
    return f'{values.get("images_per_second", 0):.0f} images/s{share}, loss {values["loss"]:.3g}'


def averages(metrics: Sequence[dict[str, jax.Array]]) -> dict[str, Any]:
    """The mean of each metric over some steps; waits for the devices."""
    return jax.tree.map(lambda *values: np.mean(values), *jax.device_get(metrics))
