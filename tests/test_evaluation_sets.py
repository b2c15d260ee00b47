"""The test set of a folder that has none."""

import numpy as np
import pytest
from trees import draw_textures, write_image

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
