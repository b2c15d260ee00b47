"""The configs of a sweep, which sweep.py's --config names with commas between."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from commands import command_line, config_checks
from draem_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """One of the configs of a sweep.

    Attributes:
        name: of its folder in the sweep; '' where it is the only one.
        config: checked.
        arguments: the flags from which train.py makes `config`.
    """

    name: str
    config: ConfigDict
    arguments: list[str]


def read(files: Sequence[str], changes: Mapping[str, Any]) -> list[SweepConfig]:
    """Loads and checks the configs of a sweep.

    Args:
        files: each with its argument after a colon, as `command_line.config_files` lists them.
        changes: {'section.field': value}, in each config. A texture root is left out where it is of no use: several
            configs may differ in where their textures come from, and all have the same command line.

    Raises:
        UserError: a config cannot be loaded, or holds what it may not hold; or two would share a folder.
    """
    if not files:
        config_checks.check(None)
    if len(files) == 1:
        return [_read_one(files[0], '', changes)]
    by_name: dict[str, str] = {}
    for file in files:
        name = config_name(file)
        if name in by_name:
            raise UserError(f"'{by_name[name]}' and '{file}' would share the folder '{name}' of the sweep.")
        by_name[name] = file
    configs = []
    for name, file in by_name.items():
        with naming(file):
            configs.append(_read_one(file, name, changes))
    return configs


def _read_one(file: str, name: str, changes: Mapping[str, Any]) -> SweepConfig:
    def load(changes: Mapping[str, Any]) -> tuple[ConfigDict, list[str]]:
        arguments = [f'--config={file}', *(f'--config.{field}={value}' for field, value in changes.items())]
        config = command_line.load_config(arguments)
        config_checks.check_fields(config)
        return config, arguments

    config, arguments = load(changes)
    has_own_source = config.dataset.texture_source not in ('folder', 'dtd') and 'dataset.texture_source' not in changes
    if name and has_own_source:
        config, arguments = load({field: changes[field] for field in changes if field != 'dataset.texture_root'})
    config_checks.check(config)
    return SweepConfig(name, config_checks.expand_home(config), arguments)


def config_name(file: str) -> str:
    """The name of a config's folder in the sweep: ablations_colours_screw for 'configs/ablations.py:colours,screw'."""
    path, _, argument = file.partition(':')
    return re.sub(r'[^\w.-]+', '_', f'{pathlib.PurePath(path).stem}_{argument}').strip('._') or 'config'


@contextlib.contextmanager
def naming(config: str) -> Iterator[None]:
    """Names the config in each UserError that does not; '' where there is only one."""
    try:
        yield
    except UserError as error:
        if config in str(error):
            raise
        raise UserError(f'{config}: {error}') from error
