"""The test set of a folder that has none."""

import numpy as np
import pytest
from trees import draw_textures, draw_tree, write_image

from configs import default
from data import evaluation_sets, inputs


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp('parts')
    for k in range(20):
        write_image(folder / 'parts' / f'{k:03}.png', k)
    options = default.get_config().dataset
    options.root, options.texture_root = str(folder / 'parts'), str(draw_textures(folder / 'textures'))
    options.image_size, options.validation_fraction, options.test_fraction = (32, 32), 0.2, 0.3
    return inputs.load(**options)


@pytest.fixture(scope='module')
def examples(loaded):
    return evaluation_sets.make_examples(loaded, **default.get_config().synthesis)


def test_the_three_sets_of_normal_images_are_disjoint_and_complete(loaded):
    banks = (loaded.normals, loaded.held_out, loaded.test)
    sets = [[int(bank[k][0, 0, 0]) for k in range(len(bank))] for bank in banks]
    assert list(map(len, sets)) == [10, 4, 6]
    assert sorted([*sets[0], *sets[1], *sets[2]]) == list(range(20))
    assert [int(name[:3]) for name in loaded.held_out_names['']['test']] == sets[2]


def test_every_held_out_image_is_there_once_as_it_is(loaded, examples):
    normals = [example for example in examples if not example['label']]
    assert [example['filename'] for example in normals] == loaded.held_out_names['']['test']
    assert all((example['image'] == int(example['filename'][:3])).all() for example in normals)
    assert not any(example['mask'].any() for example in normals)


def test_every_anomaly_lies_on_a_held_out_image_where_its_mask_says(loaded, examples):
    greys = [int(name[:3]) for name in loaded.held_out_names['']['test']]
    anomalous = [example for example in examples if example['label']]
    assert len(anomalous) == 64
    for example in anomalous:
        outside = example['image'][example['mask'][..., 0] == 0]
        assert len(np.unique(outside)) == 1
        assert outside[0, 0] in greys
        assert set(np.unique(example['mask'])) == {0, 255}


def test_it_is_the_same_every_time(loaded, examples):
    again = evaluation_sets.make_examples(loaded, **default.get_config().synthesis)
    for one, other in zip(examples, again, strict=True):
        np.testing.assert_array_equal(one['image'], other['image'])


@pytest.fixture
def without_normal_test(tmp_path):
    """A config of named folders, `normal=OK,defects=NG`, none of which has normal images to test on."""
    tree = draw_tree(tmp_path / 'tree', train=10, scratched=3)
    options = default.get_config().dataset
    options.root, options.options = str(tree), 'normal=train/good,defects=test/scratch,masks=ground_truth/scratch'
    options.image_size, options.texture_source, options.texture_count = (32, 32), 'procedural', 2
    return options


def test_where_no_test_image_is_normal_some_good_ones_are_held_out_and_it_is_said(without_normal_test):
    options = without_normal_test
    options.validation_fraction, options.test_fraction = 0.2, 0.3
    loaded = inputs.load(**options)
    assert [len(bank) for bank in (loaded.normals, loaded.held_out, loaded.test)] == [5, 2, 3]
    assert 'There are no normal test images: 3 of the good ones are held out for the test.' in loaded.warnings
    (test,) = evaluation_sets.open_evaluation_sets(options, {}, lambda: loaded.held_out_names).values()
    examples = list(test.read())
    assert test.count == len(examples) == 6
    assert [example['label'] for example in examples] == [0, 0, 0, 1, 1, 1]
    assert [example['filename'] for example in examples[:3]] == loaded.held_out_names['']['test']
    assert [int(example['image'][0, 0, 0]) for example in examples[:3]] == [int(bank[0, 0, 0]) for bank in loaded.test]
    assert (test.split, '3 good images that were held out' in test.note) == ('test', True)
    assert all(example['mask'].any() == example['label'] for example in examples)


def test_a_run_that_held_none_out_is_told_so(without_normal_test):
    loaded = inputs.load(**without_normal_test)
    assert any('no normal test images' in warning for warning in loaded.warnings)
    (test,) = evaluation_sets.open_evaluation_sets(without_normal_test, {}, lambda: loaded.held_out_names).values()
    assert test.count == len(list(test.read())) == 3
    assert 'test_fraction=0.1' in test.note


def test_normal_images_of_the_test_set_are_enough(without_normal_test):
    options = without_normal_test
    options.options, options.test_fraction = '', 0.3
    loaded = inputs.load(**options)
    assert len(loaded.test) == 0
    (test,) = evaluation_sets.open_evaluation_sets(options, {}, lambda: loaded.held_out_names).values()
    assert (test.count, test.note) == (6, None)
