"""Options of a data set as a config gives them: those that its builder takes, and a clear word on all others."""

import pytest

import data
from draem_jax.errors import UserError


@pytest.mark.parametrize(
    ('name', 'category', 'options', 'known'),
    [
        ('simulated', 'fabric', 'seed=1', 'none'),
        ('simulated', 'fabric', 'seed=x', 'none'),
        ('simulated', 'fabric', 'version=9.9.9', 'none'),
        ('cifar10_one_class', 'cat', 'seed=1', 'none'),
        ('mvtec_ad', 'bottle', 'config=cable', 'none'),
        ('folder', '', 'data_dir=/elsewhere', 'normal, .*masks'),
        ('ksdd2', '', 'self=1', 'supervised'),
    ],
)
def test_an_option_that_a_data_set_does_not_take_is_named_with_those_it_takes(tmp_path, name, category, options, known):
    option = options.partition('=')[0]
    expected = rf"'{name}' has no option '{option}'\. Known: {known}.*Change --config\.dataset\.options\.$"
    with pytest.raises(UserError, match=expected):
        data.make_builders(name, category, str(tmp_path), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'expected'),
    [('supervised=x', 'expected true or false'), ('supervised', 'expected name=value'), ('=1', 'expected name=value')],
)
def test_an_option_with_a_value_of_another_kind_is_refused(tmp_path, options, expected):
    with pytest.raises(UserError, match=rf'dataset\.options.*{expected}'):
        data.make_builders('ksdd2', '', str(tmp_path), options)
