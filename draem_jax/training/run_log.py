"""What a training run says: log lines, `metrics.jsonl`, TensorBoard."""

import json
import math
import pathlib
import time

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from draem_jax import run_directory


class RunLog:
    """Writes scalars and pictures of a run to every place where somebody looks; use it in a `with` block.

    Args:
        workdir: the run's directory.
        first_step: the step a resumed run goes on from; what was logged beyond it is dropped, for it is made again.
        is_silent: write nothing: one of several processes speaks for all.
    """

    def __init__(self, workdir, first_step=0, *, is_silent=False):
        self._is_silent = is_silent
        if is_silent:
            return
        self._path = pathlib.Path(workdir) / 'metrics.jsonl'
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if _step_of(line) <= first_step]
            run_directory.write_text(self._path, ''.join(line + '\n' for line in lines))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not a SummaryWriter: the thread that it writes in dies on a full disk, and later calls wait for ever.
        self._board = EventsWriter(str(self._path.with_name('events')))
        # TensorBoard hides what earlier files hold from this step on.
        self._show(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if not self._is_silent:
            self._board.close()

    def scalars(self, step, values):
        """Writes a dict of names to numbers: a line on the screen, a line of JSON, a point on each curve."""
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

    def picture(self, step, name, image):
        """Shows an RGB image, uint8 [H, W, 3], in TensorBoard."""
        if self._is_silent:
            return
        self._show(step, summary=summary.image(name, image, dataformats='HWC'))
        self._board.flush()

    def _show(self, step, **content):
        self._board.write_event(Event(wall_time=time.time(), step=step, **content))


def _step_of(line):
    """The step of a line of JSON; infinite for a line that a crash cut short."""
    try:
        return json.loads(line)['step']
    except (ValueError, KeyError, TypeError):
        return float('inf')
