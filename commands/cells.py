"""The cells of a sweep: one run for each category and seed, in `<workdir>/<category>/seed_<n>/`.

In a sweep over several configs it is `<workdir>/<name of the config>/<category>/seed_<n>/`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from commands import evaluation_records
from draem_jax import run_directory
from draem_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep; `config` is the name of its config, or '' where the sweep has one config."""

    category: str
    seed: int
    workdir: pathlib.Path
    config: str = ''

    def __str__(self) -> str:
        return ', '.join([*filter(None, [self.config]), self.category, f'seed {self.seed}'])


def list_cells(workdir: str | os.PathLike[str]) -> list[Cell]:
    """The cells in a folder, sorted by config, category and seed; empty where the folder holds no sweep."""
    cells = []
    for pattern in ('*/seed_*/config.json', '*/*/seed_*/config.json'):
        for path in pathlib.Path(workdir).glob(pattern):
            *config, category, seed, _ = path.relative_to(workdir).parts
            number = seed.removeprefix('seed_')
            if number.isdecimal():
                cells.append(Cell(category, int(number), path.parent, *config))
    return sorted(cells, key=lambda cell: (cell.config, cell.category, cell.seed))


def read_last_results(cell: Cell) -> dict[str, Any] | None:
    """The results of a cell's last checkpoint by its own config, or None until training and evaluation have ended.

    Raises:
        UserError: a file of the run cannot be read.
    """
    step = run_directory.finished_step(cell.workdir)
    return None if step is None else evaluation_records.read_matching(cell.workdir, step)


@dataclasses.dataclass(frozen=True, eq=False)
class CellJob:
    """A cell that is asked for: what its config.json is to hold, and the two commands that make it."""

    cell: Cell
    config: dict[str, Any]
    train: list[str]
    evaluate: list[str]

    def __str__(self) -> str:
        return str(self.cell)

    @property
    def log(self) -> pathlib.Path:
        """The file that its processes write to."""
        return self.cell.workdir / 'log.txt'

    @property
    def slurm_note(self) -> pathlib.Path:
        """The file that holds the id of its last SLURM job."""
        return self.cell.workdir / 'slurm_job.txt'

    def is_trained(self) -> bool:
        """Whether its training has ended, with exactly the config that is asked for now.

        With another config train.py decides: it goes on to another length, refuses other values, or has nothing to do.
        """
        workdir = self.cell.workdir
        try:
            return run_directory.is_finished(workdir) and run_directory.read_config(workdir) == self.config
        except UserError:  # train.py says what is wrong with a file of its run.
            return False

    def is_evaluated(self) -> bool:
        """Whether its last checkpoint has been evaluated in the way that is asked for now."""
        try:
            results = read_last_results(self.cell)
        except UserError:
            return False
        return results is not None and results.get('options') == self.config['evaluation']

    def is_finished(self) -> bool:
        return self.is_trained() and self.is_evaluated()

    def lacking_commands(self) -> Iterator[list[str]]:
        """The commands still to be carried out. It looks for an evaluation only once the training has ended."""
        if not self.is_trained():
            yield self.train
        if not self.is_evaluated():
            yield self.evaluate
