"""Where images are kept: the same pixels everywhere, found again, and bounded."""

import os

import numpy as np
import pytest
from trees import draw_textures, draw_tree, write_image

import data
from data import banks, normals, pipeline
from data.normals import load_normals
from data.textures import load_textures
from draem_jax.errors import UserError

SIZE = (32, 64)


@pytest.fixture
def builder(tmp_path):
    return data.make_builder('folder', root=str(draw_tree(tmp_path / 'tree')))


def load(builder, folder, kind):
    keep = {'cache': kind, 'cache_folder': str(folder)}
    return load_normals(builder, SIZE, validation_fraction=0.25, **keep)[:2]


def contents(bank):
    return np.stack([bank[k] for k in range(len(bank))])


def test_every_cache_gives_the_same_examples(builder, tmp_path):
    draw_textures(tmp_path / 'textures')
    made = {}
    for kind in banks.CACHES:
        keep = {'cache': kind, 'cache_folder': str(tmp_path / 'kept')}
        training, held_out, *_ = load_normals(builder, SIZE, validation_fraction=0.25, **keep)
        textures = load_textures(str(tmp_path / 'textures'), SIZE, **keep)
        assert (len(training), len(held_out), len(textures)) == (6, 2, 5)
        made[kind] = pipeline.examples(training, textures, seed=0, positions=range(20))
    assert made['memory']['mask'].any()
    for kind in ('disk', 'none'):
        for name, value in made['memory'].items():
            np.testing.assert_array_equal(made[kind][name], value)


def test_disk_decodes_once_and_maps_the_file_afterwards(builder, tmp_path, monkeypatch):
    expected = contents(load(builder, tmp_path / 'kept', 'disk')[0])
    monkeypatch.setattr(normals, 'read', None)
    bank, _ = load(builder, tmp_path / 'kept', 'disk')
    np.testing.assert_array_equal(contents(bank), expected)
    assert len(list((tmp_path / 'kept').iterdir())) == 1


def test_a_changed_image_is_seen(builder, tmp_path):
    load(builder, tmp_path / 'kept', 'disk')
    path = tmp_path / 'tree' / 'train' / 'good' / '003.png'
    write_image(path, 77)
    os.utime(path, ns=(1, 1))
    training, validation = load(builder, tmp_path / 'kept', 'disk')
    assert 77 in {int(image[0, 0, 0]) for image in [*contents(training), *contents(validation)]}


def test_another_size_is_another_file(builder, tmp_path):
    keep = {'cache': 'disk', 'cache_folder': str(tmp_path / 'kept')}
    for size in (SIZE, (64, 32)):
        assert load_normals(builder, size, **keep)[0].shape == (8, *size, 3)


def test_a_file_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path):
    def breaks_off():
        yield np.zeros((*SIZE, 3), np.uint8)
        raise UserError('Cannot read image.')

    with pytest.raises(UserError, match='Cannot read image'):
        banks.on_disk(breaks_off, (2, *SIZE, 3), identity=[], folder=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r"Cannot write '.*file.*cache_folder"):
        banks.on_disk(lambda: iter(()), (0, *SIZE, 3), identity=[], folder=str(tmp_path / 'file'))


def test_ten_thousand_images_of_256_px_take_two_gigabytes():
    banks.check_memory([(10_000, 256, 256, 3)], 2.0)
    with pytest.raises(UserError, match=r'2\.0 GB .*cache_limit_gb=1\.9.*cache=disk'):
        banks.check_memory([(10_000, 256, 256, 3)], 1.9)


def test_images_in_memory_are_one_array(builder):
    training, validation = load(builder, '', 'memory')
    training[0][...] = 123
    assert (training[0] == 123).all()
    assert training._bank is validation._bank
