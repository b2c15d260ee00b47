"""The experiment files load, their values are allowed, and wrong values are named in one line."""

import inspect

import ml_collections
import pytest
import tensorflow_datasets as tfds
from experiments import ARGUMENTS, EXPERIMENTS, MODULES, load

import data
from commands import config_checks
from configs import ablations, default, plus
from data.synthesis.example import make_example
from data.synthesis.options import check_options
from draem_jax.errors import UserError
from draem_jax.model import losses, networks
from draem_jax.training.optimizer import make_schedule
from draem_jax.training.update import make_update


@pytest.mark.parametrize('experiment', EXPERIMENTS, ids=':'.join)
def test_every_experiment_holds_allowed_values(experiment):
    config = load(*experiment)
    config_checks.check(config)
    check_options(**config.synthesis)


@pytest.mark.parametrize('name', MODULES)
def test_every_experiment_has_the_fields_and_types_of_the_default(name):
    def types(config):
        return {(section, field): type(config[section][field]) for section in config for field in config[section]}

    assert types(load(name)) == types(default.get_config())


def test_sections_unpack_into_the_functions_they_are_for():
    config = default.get_config()
    for function, positional, section in (
        (make_example, 4, 'synthesis'),
        (check_options, 0, 'synthesis'),
        (make_update, 2, 'loss'),
        (make_schedule, 1, 'optimizer'),
        (networks.make_model, 0, 'model'),
    ):
        inspect.signature(function).bind(*range(positional), **config[section])


def test_values_of_the_loss_are_the_defaults_of_draem_loss():
    parameters = inspect.signature(losses.draem_loss).parameters
    values = default.get_config('official').loss.to_dict()
    assert not values.pop('guess_range')  # of make_update
    assert values == {name: parameters[name].default for name in values}


def test_presets_of_training_are_those_of_paper_and_released_code():
    official, paper = default.get_config('official'), default.get_config('paper')
    steps = 700 * 27  # 209 images in batches of 8.
    rates = {}
    for name, config in (('official', official), ('paper', paper)):
        assert (config.training.batch_size, config.training.epochs) == (8, 700)
        assert tuple(config.dataset.image_size) == (256, 256)
        assert (config.model.reconstructive_width, config.model.discriminative_width) == (128, 64)
        rates[name] = config.optimizer.learning_rate, config.optimizer.decay_factor, config.optimizer.decay_at
    assert rates['official'] == (1e-4, 0.2, (0.8, 0.9))
    assert rates['paper'][:2] == (1e-4, 0.1)
    assert [round(at * steps) for at in rates['paper'][2]] == [400 * 27, 600 * 27]


def test_categories_of_the_configs_are_those_of_the_data_sets(tmp_path):
    for category in ARGUMENTS['quickstart']:
        config = load('quickstart', category)
        data.make_builder(config.dataset.name, config.dataset.category, str(tmp_path))
    config = load('quickstart', 'rock')
    with pytest.raises(UserError, match=r'rock.*fabric'):
        data.make_builder(config.dataset.name, config.dataset.category, str(tmp_path))


@pytest.mark.parametrize(
    'experiment',
    [
        experiment
        for experiment in EXPERIMENTS
        if experiment[0] not in ('default', 'folder', 'light', 'plus', 'small_cpu')
    ],
)
def test_data_set_and_category_of_an_experiment_exist(experiment):
    config = load(*experiment)
    categories = [*tfds.builder_cls(config.dataset.name).builder_configs, 'all'] if config.dataset.category else ['']
    assert config.dataset.category in categories


def message_of(config):
    """The one line that train.py's checks raise for a config."""

    def check():
        config_checks.check(config)
        check_options(**config['synthesis'])

    with pytest.raises(UserError) as caught:
        check()
    message = str(caught.value)
    assert '\n' not in message
    return message


NUMBERS = [
    f'{section}.{field}'
    for section, fields in default.get_config().to_dict().items()
    for field, value in fields.items()
    if type(value) in (int, float)
]


@pytest.mark.parametrize('path', NUMBERS)
def test_a_negative_number_is_refused_everywhere(path):
    config = load('default')
    config.update_from_flattened_dict({path: -1})
    assert path in message_of(config)
    assert '-1' in message_of(config)


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        ('dataset.image_size', (100, 100)),
        ('dataset.image_size', (256,)),
        ('dataset.image_size', (0, 256)),
        ('dataset.image_size', (256.0, 256.0)),
        ('dataset.validation_fraction', 1.0),
        ('dataset.texture_source', 'disk'),
        ('synthesis.anomaly_probability', 1.5),
        ('synthesis.opacity', (0.8, 0.2)),
        ('synthesis.operations', ('gamma_contrast', 'blur', 'rotate')),
        ('synthesis.operation_count', 11),
        ('synthesis.mask_source', 'circle'),
        ('model.reconstructive_width', 0),
        ('model.dtype', 'float16'),
        ('optimizer.learning_rate', 0.0),
        ('optimizer.learning_rate', float('nan')),
        ('optimizer.decay_at', (0.9, 0.8)),
        ('optimizer.decay_at', (0.8, 1.2)),
        ('training.batch_size', 0),
        ('training.keep_checkpoints', 0),
        ('evaluation.score_window', 4),
        ('evaluation.mask_rule', 'most'),
        ('evaluation.aupro_max_fpr', 0.0),
        ('evaluation.aupro_max_fpr', 1.5),
        ('evaluation.target_fpr', 0.0),
        ('evaluation.target_fpr', 1.0),
        ('evaluation.pixel_target_fpr', 1.5),
    ],
)
def test_a_value_out_of_range_is_named_with_its_field(path, value):
    config = load('default')
    config.update_from_flattened_dict({path: value})
    assert path in message_of(config)


@pytest.mark.parametrize(
    'path', ['dataset.image_size', 'training.batch_size', 'optimizer.learning_rate', 'optimizer.decay_at']
)
def test_a_value_of_another_type_is_named_with_its_field(path):
    # This is a config read from a file; for one from the command line ml_collections compares the types.
    section, field = path.split('.')
    values = load('default').to_dict()
    values[section][field] = 'eight'
    assert path in message_of(ml_collections.ConfigDict(values))


FLOATS = [
    path for path in NUMBERS if isinstance(default.get_config().get(path.split('.')[0])[path.split('.')[1]], float)
]


@pytest.mark.parametrize('path', FLOATS)
@pytest.mark.parametrize('value', [float('inf'), float('nan'), 10**400])
def test_a_number_that_is_not_finite_is_refused_everywhere(path, value):
    section, field = path.split('.')
    values = load('default').to_dict()
    values[section][field] = value
    assert f'{path}={value!r}: expected a finite number' in message_of(values)


@pytest.mark.parametrize(
    ('path', 'value', 'expected'),
    [
        ('training.batch_size', 4.0, 'an integer'),
        ('training.batch_size', True, 'an integer'),
        ('training.steps', 2**31, 'an integer below 2^31'),
        ('optimizer.learning_rate', '0.1', 'a number'),
        ('optimizer.learning_rate', False, 'a number'),
        ('evaluation.score_window', '5', 'an integer'),
        ('evaluation.report', 'False', 'True or False'),
        ('evaluation.report', 0, 'True or False'),
        ('synthesis.match_grey', 'yes', 'True or False'),
        ('dataset.root', 5, 'text'),
        ('dataset.root', None, 'text'),
        ('dataset.image_size', 64, 'several values'),
        ('dataset.image_size', [64, 64, 64], 'both multiples of 32'),
        ('dataset.image_size', [64, '64'], 'an integer in each place'),
        ('dataset.image_size', [64, True], 'an integer in each place'),
        ('optimizer.decay_at', [0.5, None], 'a number in each place'),
        ('optimizer.decay_at', [0.5, float('inf')], 'a finite number in each place'),
        ('synthesis.opacity', [0.5], 'lowest, highest'),
        ('synthesis.operations', [['rotate']], 'text in each place'),
        ('dataset.bit_depth', 8, '9 to 16 bits'),
        ('dataset.bit_depth', 17, '9 to 16 bits'),
    ],
)
def test_a_value_of_another_kind_is_named_with_what_is_expected(path, value, expected):
    section, field = path.split('.')
    values = load('default').to_dict()
    values[section][field] = value
    message = message_of(values)
    assert path in message
    assert expected in message


@pytest.mark.parametrize('bits', [0, 9, 12, 16])
def test_bit_depths_of_cameras_are_allowed(bits):
    config = load('default')
    config.dataset.bit_depth = bits
    config_checks.check(config)


def test_a_list_from_json_counts_as_the_tuple_that_it_was():
    values = load('default').to_dict()
    values['dataset']['image_size'], values['optimizer']['decay_at'] = [64, 96], []
    config_checks.check(values)


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        (lambda values: values['evaluation'].update(score_window='5'), "evaluation.score_window='5': expected an int"),
        (lambda values: values.update(dataset=5), "no section 'dataset'"),
        (lambda values: values.pop('model'), "no section 'model'"),
        (lambda values: values.update({'a.b': {}}), 'Unknown section config.a.'),
        (lambda values: values['loss'].update({'a.b': 1}), 'Unknown field config.loss.a.b'),
    ],
)
def test_a_mistake_in_a_config_file_names_the_file_and_a_flag_mends_a_value(change, part):
    values = load('default').to_dict()
    change(values)
    with pytest.raises(UserError) as caught:
        config_checks.config_of_run(
            {k: v for k, v in values.items() if k != 'dataset' or v != 5}, {}, 'run/config.json'
        )
    assert "'run/config.json'" in str(caught.value)
    assert part in str(caught.value)
    if 'score_window' in part:
        changed = config_checks.config_of_run(values, {'evaluation.score_window': 7}, 'run/config.json')
        assert changed.evaluation.score_window == 7
        with pytest.raises(UserError, match=r'^--config\.evaluation\.score_window=4'):
            config_checks.config_of_run(values, {'evaluation.score_window': 4}, 'run/config.json')


def test_paths_of_a_config_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv('HOME', '/home/someone')
    values = load('default').to_dict()
    values['dataset'].update(root='~/parts', texture_root='~/dtd', cache_folder='~/cache')
    values['training']['warm_start'] = '~/runs/old'
    config = config_checks.config_of_run(values, {})
    assert (config.dataset.root, config.dataset.texture_root) == ('/home/someone/parts', '/home/someone/dtd')
    assert (config.dataset.cache_folder, config.training.warm_start) == (
        '/home/someone/cache',
        '/home/someone/runs/old',
    )
    assert config_checks.config_of_run(values, {'dataset.root': 'gs://b/~/x'}).dataset.root == 'gs://b/~/x'


def test_an_unknown_field_is_named_with_those_that_exist():
    config = load('default')
    config.training.batchsize = 8
    assert 'config.training.batchsize' in message_of(config)
    assert 'batch_size' in message_of(config)


def test_an_unknown_section_is_named_with_those_that_exist():
    config = load('default')
    config.trainer = ml_collections.ConfigDict({'steps': 8})
    assert 'config.trainer' in message_of(config)
    assert 'training' in message_of(config)


@pytest.mark.parametrize('path', ['training', 'training.seed'])
def test_a_missing_field_or_section_is_named(path):
    config = load('default')
    section, _, field = path.partition('.')
    if field:
        del config[section][field]
    else:
        del config[section]
    assert section in message_of(config)
    assert field in message_of(config)


def test_fields_that_an_earlier_version_did_not_know_take_their_defaults():
    values = load('default').to_dict()
    del values['evaluation']['target_fpr'], values['dataset']['cache']
    config = config_checks.config_of_run(values, {'training.seed': 7})
    assert config.evaluation.target_fpr == default.get_config().evaluation.target_fpr
    assert config.dataset.cache == default.get_config().dataset.cache
    assert config.training.seed == 7


def test_without_a_config_the_user_is_told_what_to_pass():
    assert '--config=' in message_of(None)


def test_textures_from_a_folder_need_the_folder():
    config = load('default')
    config.dataset.texture_root = ''
    assert '--config.dataset.texture_root' in message_of(config)


@pytest.mark.parametrize('experiment', [('default', 'papper'), ('mvtec', 'bottle,papper'), ('folder', 'papper')])
def test_an_unknown_preset_is_named_with_those_that_exist(experiment):
    with pytest.raises(ValueError, match=r'papper.*official, paper'):
        load(*experiment)


def test_a_texture_folder_that_would_not_be_used_is_refused():
    config = load('folder')
    config.dataset.texture_root = 'textures'
    assert 'texture_source=folder' in message_of(config)


@pytest.mark.parametrize(
    ('experiment', 'names'),
    [(('ablations', 'nonsense'), ablations.CHANGES), (('plus', 'fast+nonsense'), plus.SWITCHES)],
)
def test_an_unknown_row_or_switch_is_named_with_those_that_exist(experiment, names):
    with pytest.raises(ValueError, match='nonsense') as caught:
        load(*experiment)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize('widths', ['32', '32,0', '32,x', '1,2,3'])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(ValueError, match=f'{widths}.*such as 32,64'):
        load('light', widths)


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'model.networks': 'reconstructive'}, "anomaly_map='ssim' or 'msgms'"),
        ({'model.networks': 'discriminative', 'model.anomaly_map': 'ssim'}, "expected 'segmentation'"),
        ({'model.networks': 'discriminative', 'model.sees_difference': True}, 'model.sees_difference=True'),
        ({'model.networks': 'discriminative', 'model.high_pass_sigma': 2.0}, 'model.high_pass_sigma=2.0'),
        ({'model.networks': 'neither'}, "'both', 'discriminative' or 'reconstructive'"),
        ({'model.anomaly_prior': 0.0}, 'model.anomaly_prior=0.0'),
        ({'training.ema_decay': 1.0}, 'training.ema_decay=1.0'),
        ({'optimizer.schedule': 'linear'}, "'steps' or 'cosine'"),
        ({'evaluation.score_top': 1.5}, 'evaluation.score_top=1.5'),
        ({'synthesis.min_cells_log2': 6}, 'synthesis.min_cells_log2'),
        ({'synthesis.rotation_fill': 'white'}, 'black, mirror'),
        ({'synthesis.real_defect_probability': 0.5}, 'dataset.defect_root=FOLDER'),
        ({'dataset.defect_root': 'known'}, 'synthesis.real_defect_probability is 0'),
    ],
)
def test_switches_that_contradict_each_other_are_named(changes, part):
    config = load('default')
    config.update_from_flattened_dict(changes)
    assert part in message_of(config)
