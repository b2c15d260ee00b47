"""What a detector reads of a run's config.json."""

import json
import math

import pytest

from configs import folder
from draem_jax import run_directory
from draem_jax.detection import run_settings
from draem_jax.errors import UserError

REMOVED = object()


def start_run(workdir):
    """The values of the config that was written, as JSON has them."""
    run_directory.start(workdir, folder.get_config().to_dict())
    return json.loads((workdir / 'config.json').read_text())


def test_a_run_as_its_config_says(tmp_path):
    config = start_run(tmp_path)
    config['dataset'].update(image_size=[64, 96], antialias=True, bit_depth=12)
    config['evaluation'].update(score_window=5, score_top=0.25, batch_size=3)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    model = folder.get_config().model.to_dict()
    assert run_settings.read(tmp_path) == run_settings.RunSettings(model, (64, 96), True, 12, 5, 0.25, 3)


def test_a_run_older_than_a_field_has_what_was_done_before_it(tmp_path):
    config = start_run(tmp_path)
    config['dataset'].pop('bit_depth', None)
    for field in ('remat', 'networks', 'anomaly_map', 'padding', 'anomaly_prior', 'sees_difference', 'high_pass_sigma'):
        del config['model'][field]
    del config['evaluation']['score_top']
    (tmp_path / 'config.json').write_text(json.dumps(config))
    settings = run_settings.read(tmp_path)
    assert (settings.bit_depth, settings.score_top) == (0, 0.0)
    assert settings.model == folder.get_config().model.to_dict()  # Defaults mean what was done before.


WRONG = {
    'model': [REMOVED, None, 5, 'small', []],
    'dataset': [REMOVED, None, 5, [1, 2]],
    'evaluation': [REMOVED, None, 'no'],
    'model.reconstructive_width': [REMOVED, 0, -4, 2.5, '128', None, True, [128]],
    'model.discriminative_width': [REMOVED, '64'],
    'model.dtype': [REMOVED, 'float', 'float64', 32, None, ['auto']],
    'model.remat': [0, 'no', None],
    'model.networks': ['all', None],
    'model.anomaly_map': ['heat'],
    'model.padding': ['edge'],
    'model.anomaly_prior': [0, 1, '0.5', math.nan],
    'model.high_pass_sigma': [-1, math.inf],
    'evaluation.score_top': [-0.1, 1.5, None],
    'model.depth': [5],
    'dataset.image_size': [
        REMOVED,
        64,
        [64],
        [64, 64, 64],
        [64, '64'],
        [60, 64],
        [0, 64],
        [-32, 64],
        [64.0, 64],
        'ab',
        {},
    ],
    'dataset.antialias': [REMOVED, 1, 'false', None],
    'dataset.bit_depth': [1, 8, 17, -12, 12.0, '12', None],
    'evaluation.score_window': [REMOVED, '5', 0, 4, -3, 5.0, None, math.nan],
    'evaluation.batch_size': [REMOVED, 0, '4', 1.5, None],
}


@pytest.mark.parametrize('name', WRONG)
def test_a_value_that_makes_no_sense_is_one_line_that_names_file_and_field(tmp_path, name):
    config = start_run(tmp_path)
    section, _, field = name.partition('.')
    for value in WRONG[name]:
        changed = json.loads(json.dumps(config))
        entries, entry = (changed[section], field) if field else (changed, section)
        entries[entry] = value
        if value is REMOVED:
            del entries[entry]
        (tmp_path / 'config.json').write_text(json.dumps(changed))
        with pytest.raises(UserError) as caught:
            run_settings.read(tmp_path)
        message = str(caught.value)
        assert '\n' not in message
        assert str(tmp_path / 'config.json') in message
        assert name in message
