"""The normal images: how they are split, what stays the same between starts, and files that cannot be read."""

import io

import numpy as np
import PIL.Image
import pytest
from drawn_tree import Drawn, greys
from trees import draw_tree, write_image

import data
from data import prepared
from data.normals import load_normals
from draem_jax.errors import UserError

SIZE = (32, 64)


@pytest.fixture
def builder(tmp_path):
    return data.make_builder('folder', root=str(draw_tree(tmp_path / 'tree')))


def test_normals_are_split_into_training_and_validation_without_loss(builder):
    training, validation, *_ = load_normals(builder, SIZE, validation_fraction=0.25)
    assert (len(training), len(validation)) == (6, 2)
    assert training.dtype == validation.dtype == np.uint8
    assert sorted(greys(training) + greys(validation)) == list(range(8))


def test_a_prepared_data_set_gives_the_normals_of_the_same_files_in_place(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, 'source', builder.data_dir)
    drawn = Drawn(data_dir=str(tmp_path / 'prepared'))
    prepared.prepare(drawn)
    expected = [greys(bank) for bank in load_normals(builder, SIZE, validation_fraction=0.25)[:2]]
    for cache in ('memory', 'disk'):
        keep = {'cache': cache, 'cache_folder': str(tmp_path / 'kept')}
        *banks, _, names = load_normals(drawn, SIZE, validation_fraction=0.25, **keep)
        assert [greys(bank) for bank in banks] == expected
        assert names['validation'] == [f'train/{grey}' for grey in expected[1]]
    with pytest.raises(UserError, match=r'cache=none.*Expected memory or disk'):
        load_normals(drawn, SIZE, cache='none')


def test_the_same_normals_are_held_out_every_time(builder):
    first, second = (load_normals(builder, SIZE, validation_fraction=0.5)[1] for _ in range(2))
    assert greys(first) == greys(second)


def test_without_a_fraction_all_normals_are_trained_on_in_order(builder):
    training, validation, *_ = load_normals(builder, SIZE)
    assert greys(training) == list(range(8))
    assert validation.shape == (0, *SIZE, 3)


@pytest.mark.parametrize('fraction', [0.01, 0.99])
def test_a_fraction_that_leaves_nothing_for_one_of_the_two_is_refused(builder, fraction):
    with pytest.raises(UserError, match=rf'validation_fraction={fraction} of 8 images leaves'):
        load_normals(builder, SIZE, validation_fraction=fraction)


def test_an_unreadable_file_in_the_middle_is_named(builder, tmp_path):
    buffer = io.BytesIO()
    PIL.Image.new('RGB', (36, 40)).save(buffer, 'png')
    (tmp_path / 'tree' / 'train' / 'good' / '004.png').write_bytes(buffer.getvalue()[:-20])
    with pytest.raises(UserError, match=r'004\.png'):
        load_normals(builder, SIZE)


@pytest.mark.parametrize('cache', ['memory', 'disk', 'none'])
def test_files_that_cannot_be_read_are_passed_over_only_if_asked_for(builder, tmp_path, capsys, cache):
    (tmp_path / 'tree' / 'train' / 'good' / '004.png').write_bytes(b'no image')
    keep = {'cache': cache, 'cache_folder': str(tmp_path / 'kept')}
    training, *_ = load_normals(builder, SIZE, skip_unreadable=True, **keep)
    assert greys(training) == [0, 1, 2, 3, 5, 6, 7]
    said = capsys.readouterr().out
    assert '004.png' in said
    assert '1 of 8 files were passed over' in said
    with pytest.raises(UserError, match=r'004\.png'):
        greys(load_normals(builder, SIZE, **keep)[0])


def test_test_images_are_kept_apart_only_where_there_is_no_test(builder, tmp_path):
    assert len(load_normals(builder, SIZE, test_fraction=0.5)[2]) == 0
    for k in range(8):
        write_image(tmp_path / 'flat' / f'{k}.png', k)
    flat = data.make_builder('folder', root=str(tmp_path / 'flat'))
    training, _, test, names = load_normals(flat, SIZE, test_fraction=0.5)
    assert sorted(greys(training) + greys(test)) == list(range(8))
    assert names == {'validation': [], 'test': [f'{grey}.png' for grey in greys(test)]}


def test_images_that_come_later_change_nothing_about_what_is_held_out(builder, tmp_path):
    fractions = {'validation_fraction': 0.25, 'test_fraction': 0.25}
    for k in range(8):
        write_image(tmp_path / 'flat' / f'{k}.png', k)
    *_, names = load_normals(data.make_builder('folder', root=str(tmp_path / 'flat')), SIZE, **fractions)
    write_image(tmp_path / 'flat' / '0_new.png', 99)
    again = data.make_builder('folder', root=str(tmp_path / 'flat'))
    training, validation, test, names_again = load_normals(again, SIZE, **fractions, pinned=names)
    assert names_again == names
    assert [f'{grey}.png' for grey in greys(validation)] == names['validation']
    assert [f'{grey}.png' for grey in greys(test)] == names['test']
    assert 99 in greys(training)
    assert len(training) == 5
    (tmp_path / 'flat' / names['test'][0]).unlink()
    with pytest.raises(UserError, match=f"1 of the 2 images .* for the test .*'{names['test'][0]}'"):
        load_normals(data.make_builder('folder', root=str(tmp_path / 'flat')), SIZE, pinned=names)
