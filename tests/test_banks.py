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


def test_in_memory_every_file_is_decoded_once_also_where_unreadable_ones_are_passed_over(
    builder, tmp_path, monkeypatch
):
    (tmp_path / 'tree' / 'train' / 'good' / '004.png').write_bytes(b'no image')
    opened = []
    read = normals.read
    monkeypatch.setattr(normals, 'read', lambda record, *how: opened.append(record.filename) or read(record, *how))
    training, _, _, _ = load_normals(builder, SIZE, skip_unreadable=True)
    assert [int(image[0, 0, 0]) for image in contents(training)] == [0, 1, 2, 3, 5, 6, 7]
    assert sorted(opened) == [f'train/good/00{k}.png' for k in range(8)]


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


def filled(grey):
    """Two images of one grey."""
    return lambda: iter(np.full((2, *SIZE, 3), grey, np.uint8))


def on_disk(decode_all, folder):
    return banks.on_disk(decode_all, (2, *SIZE, 3), identity=['same'], folder=str(folder))


def test_two_writers_with_one_process_id_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'getpid', lambda: 7)
    seen = []

    def meanwhile():
        yield np.full((*SIZE, 3), 50, np.uint8)
        seen.append(contents(on_disk(filled(50), tmp_path)))  # In another container, from beginning to end.
        yield np.full((*SIZE, 3), 50, np.uint8)

    assert (contents(on_disk(meanwhile, tmp_path)) == 50).all()
    assert (seen[0] == 50).all()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('damage', ['short', 'empty', 'text', 'other'])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    before = on_disk(filled(50), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.unlink()  # `before` keeps the old file; this is another one.
    if damage == 'other':
        np.save(path, np.zeros((1, *SIZE, 3), np.uint8))
    else:
        path.write_bytes({'short': whole[:-100], 'empty': b'', 'text': b'not an array'}[damage])
    assert (contents(on_disk(filled(60), tmp_path)) == 60).all()
    assert (contents(before) == 50).all()
    assert list(tmp_path.iterdir()) == [path]


def test_partial_files_of_dead_writers_go_after_a_day_and_nothing_else(tmp_path):
    name = 32 * 'a'
    files = [f'.{name}.7.partial', f'.{name}.7-0badcafe.partial', f'.{name}.8-0badcafe.partial', '.mine.partial']
    for file in files:
        (tmp_path / file).write_bytes(b'...')
    for file in (files[0], files[1], files[3]):
        os.utime(tmp_path / file, (1, 1))
    on_disk(filled(50), tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.suffix == '.partial'} == {files[2], files[3]}


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
