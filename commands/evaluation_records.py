"""How an evaluation was made, as its results.json tells, so that results made in two ways are not taken for each other.

The settings of an evaluation are {'section.field': value} of all that its numbers depend on, beside the checkpoint.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from commands import config_checks
from draem_jax import run_directory
from draem_jax.errors import UserError

Settings = dict[str, Any]

_DATASET = ('name', 'category', 'options', 'root', 'image_size', 'antialias', 'bit_depth')
_OPTIONS = ('score_window', 'score_top', 'mask_rule', 'aupro_max_fpr')
_MODEL = ('dtype', 'anomaly_map')
_TEXTURES = ('texture_source', 'texture_count')
_ROOT = 'dataset.root'
RUN = 'run.workdir'  # the setting that tells runs apart in a folder that may take the results of several


def settings_of(config: Mapping[str, Any], category: str | None = None, *, is_simulated: bool = False) -> Settings:
    """The settings of an evaluation by a config.

    Args:
        config: sections of fields, checked.
        category: the one that is evaluated, where the config names several.
        is_simulated: whether the test is simulated, so that it depends on the synthesis too.
    """
    dataset = config['dataset']
    settings = {f'dataset.{field}': dataset[field] for field in _DATASET}
    if category is not None:
        settings['dataset.category'] = category
    settings |= {f'evaluation.{field}': config['evaluation'][field] for field in _OPTIONS}
    settings |= {f'model.{field}': config['model'][field] for field in _MODEL}
    if is_simulated:
        settings |= {f'synthesis.{field}': value for field, value in config['synthesis'].items()}
        settings |= {f'dataset.{field}': dataset[field] for field in _TEXTURES}
    return json.loads(json.dumps(settings))  # As they are read again: tuples become lists.


def record_of(settings: Settings, names: Iterable[str], moved_from: str | None) -> dict[str, Any]:
    """What results.json tells of the settings: its 'dataset' and, where the test is simulated, its 'synthesis'.

    Args:
        settings: from `settings_of`.
        names: of the test images.
        moved_from: the run's own root, where the same data set lay before; None where it still lies there.
    """
    sections: dict[str, Any] = {'dataset': {}, 'model': {}}
    for path, value in settings.items():
        section, field = path.split('.')
        if section != 'evaluation':  # The whole section is in 'options'.
            sections.setdefault(section, {})[field] = value
    sections['dataset']['names_sha256'] = hash_names(names)
    if moved_from is not None:
        sections['dataset']['moved_from'] = moved_from
    return sections


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 of the names of the test images, whatever their order; as a hexadecimal string."""
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()


def differences(
    record: Mapping[str, Any],
    settings: Settings,
    own: Settings,
    names_sha256: str | None = None,
    moved_from: str | None = None,
) -> Settings:
    """The settings that differ from those of a results.json: {'section.field': value there}.

    Another root counts as the same where the data set was moved from one to the other, and its images have the same
    names.

    Args:
        record: what results.json holds.
        settings: to be compared with it.
        own: settings of the run's config, which stand for those that an older version did not record.
        names_sha256: of the test images of `settings`, if they are known.
        moved_from: where the data set of `settings` lay before, as for `record_of`.
    """
    of_section = {'evaluation': 'options'}
    found = {}
    for path, value in settings.items():
        section, field = path.split('.')
        fields = record.get(of_section.get(section, section))
        fields = fields if isinstance(fields, Mapping) else {}
        there = fields.get(field, own.get(path, value))
        is_same = there == value
        if path == 'dataset.category' and 'names_sha256' not in fields and 'per_category' in record:
            is_same = True  # An older version wrote the names of all categories, in place of 'all'.
        if path == _ROOT and not is_same:
            is_same = (
                _absolute(there) == _absolute(value)
                or fields.get('moved_from') == value
                or (
                    moved_from is not None
                    and moved_from in (there, fields.get('moved_from'))
                    and fields.get('names_sha256', names_sha256) == names_sha256
                )
            )
        if not is_same:
            found[path] = there
    return found


def _absolute(root: object) -> object:
    return os.path.abspath(os.path.expanduser(root)) if isinstance(root, str) and '://' not in root else root


def read_record(path: pathlib.Path) -> dict[str, Any] | None:
    """What a results.json holds; None where there is none, or it is damaged and the evaluation has to be made anew."""
    try:
        record = run_directory.read_json(path, '')
    except (FileNotFoundError, UserError):
        return None
    if not isinstance(record, dict):
        return None
    sections = [record.get(name) for name in ('dataset', 'options', 'metrics')]
    if not all(isinstance(section, dict) for section in sections):
        return None
    is_named = isinstance(record['dataset'].get('name'), str)
    numbers = [value for value in record['metrics'].values() if value is not None]
    is_measured = all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
    return record if is_named and is_measured else None


def read_matching(workdir: str | os.PathLike[str], step: int) -> dict[str, Any] | None:
    """The results of a run's checkpoint that were made as the run's own config.json says; None where there are none.

    Raises:
        UserError: config.json cannot be read.
    """
    path = pathlib.Path(workdir) / 'config.json'
    config = config_checks.config_of_run(run_directory.read_config(workdir), {}, str(path))
    plain = run_directory.evaluation_folder(workdir, step)
    for folder in (plain, *sorted(plain.parent.glob(f'{step}_*'))):
        record = read_record(folder / 'results.json')
        if record is None:
            continue
        is_simulated = 'synthesis' in record
        settings = settings_of(config, is_simulated=is_simulated)
        if not differences(record, settings, settings):
            return record
    return None


def choose_suffix(
    base: pathlib.Path, wanted: Mapping[str, tuple[Settings, str]], own: Settings, moved_from: str | None = None
) -> tuple[str, str | None]:
    """What to add to the folders '<base>/<step>', so that no results made in another way are replaced.

    Args:
        base: folder of evaluations.
        wanted: {path of a results.json below '<base>/<step>': (settings, SHA-256 of the names)} to be written.
        own: settings of the run's config, as for `differences`.
        moved_from: as for `differences`.

    Returns:
        (suffix, note). Where all results in '<base>/<step>' were made in the same way, or there are none, the suffix is
        empty and the note None. Otherwise the suffix names what differs, and the note says so.
    """
    plain = [folder for folder in sorted(base.glob('*')) if folder.name.isdecimal()]
    found = _differing(plain, wanted, own, moved_from)
    if not found:
        return '', None
    path, there, settings = found
    tag = tag_of(settings, there)
    suffix, number = f'_{tag}', 1
    # No character of a tag means anything else to `glob`.
    while _differing(base.glob(f'*{suffix}'), wanted, own, moved_from):
        number += 1
        suffix = f'_{tag}_{number}'
    shown = ', '.join(f'{field}={value!r}' for field, value in there.items())
    return suffix, f"'{path.parent}' holds results made with {shown}, which stay. These go to a folder of their own."


def _differing(
    folders: Iterable[pathlib.Path],
    wanted: Mapping[str, tuple[Settings, str]],
    own: Settings,
    moved_from: str | None,
) -> tuple[pathlib.Path, Settings, Settings] | None:
    """(path, differences, settings wanted) of the first results in some folders that were made in another way."""
    for folder in folders:
        for name, (settings, names_sha256) in wanted.items():
            record = read_record(folder / name)
            assumed = own | {'dataset.category': settings['dataset.category']}
            there = record and differences(record, settings, assumed, names_sha256, moved_from)
            if there:
                return folder / name, there, settings
    return None


def tag_of_record(record: Mapping[str, Any], workdir: str | os.PathLike[str]) -> str:
    """A name for what distinguishes results from those by the run's own config; '' where nothing does."""
    own = config_checks.config_of_run(run_directory.read_config(workdir), {}, f'{workdir}/config.json')
    own_settings = settings_of(own, is_simulated='synthesis' in record)
    there = differences(record, own_settings, own_settings)
    return tag_of(there, there) if there else ''


def tag_of(settings: Settings, fields: Iterable[str]) -> str:
    """A name for a folder from the values of some settings, such as 'image_size=32x32,mask_rule=full'."""
    parts = []
    for path in fields:
        value = settings[path]
        if path in (_ROOT, RUN):
            value = os.path.basename(str(value).rstrip('/\\'))
        shown = 'x'.join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f'{path.partition(".")[2]}={shown}')
    return re.sub(r'[^A-Za-z0-9_=,.-]+', '-', ','.join(parts))[:80].strip('.,-') or 'other'
