"""Where the results of an evaluation go, and what they tell of how they were made."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from commands import config_checks, evaluation_records
from draem_jax import run_directory

Names = Mapping[str, Sequence[str]]  # of the test images of each category


class Destination:
    """The folders of the results of an evaluation, and what results.json begins with.

    Args:
        workdir: directory of the run.
        own_values: its config, as config.json holds it.
        config: with which it is evaluated.
        names: of the test images.
        splits: {category: {'split': its name, 'note': a sentence or None}}.
        has_folder: whether there is a folder at the root of a data set.
        out: folder that takes the place of `workdir`.

    Attributes:
        is_unified: whether each category has a folder of its own in that of the step.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        own_values: dict[str, Any],
        config: ConfigDict,
        names: Names,
        splits: Mapping[str, Mapping[str, str | None]],
        has_folder: Callable[[str], bool],
        out: str | os.PathLike[str] | None = None,
    ) -> None:
        trained_on = own_values['dataset']['category']
        self.is_unified = config.dataset.name != 'folder' and (trained_on == 'all' or ',' in trained_on)
        self._own = config_checks.config_of_run(own_values, {}, f'{workdir}/config.json')
        self._config, self._names, self._splits, self._has_folder = config, names, splits, has_folder
        self._parent = workdir if out is None else out
        self._run = {} if out is None else {evaluation_records.RUN: os.path.realpath(workdir)}

    @functools.cached_property
    def _suffix(self) -> str:
        """What the names of the folders of steps end with, for all checkpoints alike."""
        wanted = {}
        for category in [*self._names, *([None] if len(self._names) > 1 else [])]:
            below = f'{category}/' if self.is_unified and category is not None else ''
            names_sha256 = evaluation_records.hash_names(self._names_of(category))
            wanted[f'{below}results.json'] = self._settings(self._config, category), names_sha256
        base = run_directory.evaluation_folder(self._parent, 0).parent
        suffix, note = evaluation_records.choose_suffix(base, wanted, self._settings(self._own, None), self._origin)
        if note:
            print(f'Note: {note}')
        return suffix

    def folder(self, step: int, category: str | None = None) -> pathlib.Path:
        """The folder of a checkpoint, or that of a category in it."""
        plain = run_directory.evaluation_folder(self._parent, step)
        folder = plain.with_name(plain.name + self._suffix)
        return folder / category if self.is_unified and category is not None else folder

    def record(self, category: str | None = None) -> dict[str, Any]:
        """What results.json tells of a category, or of all together."""
        settings = self._settings(self._config, category)
        sections = evaluation_records.record_of(settings, self._names_of(category), self._origin)
        sections['dataset'] |= self._splits[category if category is not None else next(iter(self._splits))]
        return sections

    def _names_of(self, category: str | None) -> list[str]:
        if category is not None:
            return list(self._names[category])
        return [f'{one}/{name}' for one, each in self._names.items() for name in each]

    def _settings(self, config: ConfigDict, category: str | None) -> evaluation_records.Settings:
        is_simulated = any(split['split'] == 'simulated' for split in self._splits.values())
        settings = evaluation_records.settings_of(config.to_dict(), category, is_simulated=is_simulated)
        return settings | self._run

    @functools.cached_property
    def _origin(self) -> str | None:
        """The root in the run's config, where the data set has been moved from there; None where it has not.

        As long as there is something at that root, another one holds other data, whatever its images are called.
        """
        own = self._own.dataset
        is_here = own.root == self._config.dataset.root or not own.root or self._has_folder(own.root)
        return None if is_here else own.root
