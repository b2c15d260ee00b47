"""What a training reads, by the names of the config."""

import hashlib
import io
import shutil
import tarfile

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from trees import draw_textures, draw_tree, write_image

from configs import default
from data import inputs
from draem_jax.errors import UserError


@pytest.fixture
def dataset(tmp_path):
    """The options of a tiny data set, without textures."""
    options = default.get_config().dataset
    options.root = str(draw_tree(tmp_path / 'tree'))
    options.image_size = (32, 32)
    return options


def test_a_line_says_what_was_read_and_what_it_takes(dataset, tmp_path):
    dataset.texture_root = str(draw_textures(tmp_path / 'textures'))
    dataset.validation_fraction = 0.25
    assert str(inputs.load(**dataset)) == ('6 normal images of 32 x 32, 2 held out; 5 textures; 0.00 GB in memory.')


@pytest.mark.parametrize(('source', 'words'), [('colour', 'plain colours'), ('self', 'patches of the normal images')])
def test_sources_that_need_no_textures(dataset, source, words):
    dataset.texture_source = source
    loaded = inputs.load(**dataset)
    assert loaded.textures == source
    assert words in str(loaded)


def test_drawn_textures_have_the_size_and_the_number_asked_for(dataset):
    dataset.texture_source, dataset.texture_count = 'procedural', 7
    assert inputs.load(**dataset).textures.shape == (7, 32, 32, 3)


def test_too_little_memory_is_said_before_anything_is_decoded(dataset):
    dataset.texture_source, dataset.texture_count, dataset.cache_limit_gb = 'procedural', 10**6, 1.0
    with pytest.raises(UserError, match='cache=disk'):
        inputs.load(**dataset)


def test_dtd_that_is_nowhere_is_refused_at_once(dataset, tmp_path):
    dataset.texture_source, dataset.texture_root = 'dtd', str(tmp_path)
    with pytest.raises(UserError, match=r'dtd-r1\.0\.1\.tar\.gz.*texture_source=folder'):
        inputs.load(**dataset)


@pytest.fixture
def dtd_archive(tmp_path):
    """Three textures, one for each split, packed as DTD is, where TFDS looks for it."""
    archive = tmp_path / 'downloads' / 'manual' / 'dtd-r1.0.1.tar.gz'
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, 'w') as tar:  # a plain tar, as the original is, whatever its name says

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for k, split in enumerate(('train1', 'val1', 'test1')):
            picture = io.BytesIO()
            PIL.Image.new('RGB', (40, 50), (60 * k + 20,) * 3).save(picture, 'jpeg', quality=100)
            add(f'dtd/images/banded/{split}.jpg', picture.getvalue())
            add(f'dtd/labels/{split}.txt', f'banded/{split}.jpg\n'.encode())
    return archive


def test_another_file_than_the_archive_of_dtd_is_refused(dataset, dtd_archive, tmp_path):
    dataset.texture_source, dataset.texture_root = 'dtd', str(tmp_path)
    with pytest.raises(UserError, match='not the archive that TFDS knows'):
        inputs.load(**dataset)


def test_dtd_is_prepared_from_its_archive_and_all_three_splits_are_taken(dataset, dtd_archive, tmp_path, monkeypatch):
    data = dtd_archive.read_bytes()
    known = tfds.core.download.checksums.UrlInfo(
        size=tfds.core.units.Size(len(data)), checksum=hashlib.sha256(data).hexdigest(), filename=dtd_archive.name
    )
    dtd = type(tfds.builder('dtd', data_dir=str(tmp_path)))
    monkeypatch.setattr(dtd, 'url_infos', dict.fromkeys(dtd.url_infos, known))
    dataset.texture_source, dataset.texture_root = 'dtd', str(tmp_path)
    for cache in ('memory', 'disk'):
        dataset.cache, dataset.cache_folder = cache, str(tmp_path / 'kept')
        textures = inputs.load(**dataset).textures
        assert textures.shape == (3, 32, 32, 3)
        assert sorted(np.asarray(textures)[:, 0, 0, 0].tolist()) == [20, 80, 140]


def test_several_categories_are_one_training_set(dataset, tmp_path):
    for category, greys in (('bottle', 4), ('screw', 8)):
        draw_tree(tmp_path / 'mvtec' / category, train=greys)
    dataset.name, dataset.root, dataset.texture_source = 'mvtec_ad', str(tmp_path / 'mvtec'), 'colour'
    dataset.category, dataset.validation_fraction = 'bottle,screw', 0.25
    loaded = inputs.load(**dataset)
    assert (loaded.normals.shape, loaded.held_out.shape) == ((9, 32, 32, 3), (3, 32, 32, 3))
    greys = sorted(int(bank[k][0, 0, 0]) for bank in (loaded.normals, loaded.held_out) for k in range(len(bank)))
    assert greys == sorted([*range(4), *range(8)])


@pytest.mark.parametrize(
    ('category', 'options', 'words'),
    [
        ('bottle,bottle', '', 'every category once'),
        ('bolt,bottle', '', "no category 'bolt'"),
        ('', 'normal', 'name=value'),
    ],
)
def test_categories_and_options_that_cannot_be_are_named(dataset, category, options, words):
    dataset.name, dataset.category, dataset.options, dataset.texture_source = 'mvtec_ad', category, options, 'colour'
    with pytest.raises(UserError, match=words):
        inputs.load(**dataset)


def test_options_reach_the_builder(dataset, tmp_path):
    for k in range(3):
        write_image(tmp_path / 'lines' / 'ok' / f'{k}.png', k)
    dataset.root, dataset.options, dataset.texture_source = str(tmp_path / 'lines'), 'normal=ok', 'colour'
    assert len(inputs.load(**dataset).normals) == 3
    dataset.options = 'normals=ok'
    with pytest.raises(UserError, match="no option 'normals'"):
        inputs.load(**dataset)


def test_what_the_data_set_lacks_is_said_before_training(dataset, tmp_path):
    dataset.texture_source = 'colour'
    assert inputs.load(**dataset).warnings == ()
    shutil.rmtree(tmp_path / 'tree' / 'ground_truth')
    (warning,) = inputs.load(**dataset).warnings
    assert "'scratch' has no masks" in warning


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [('ksdd2', 'supervised=yes', 'true or false'), ('magnetic_tile', 'seed=one', 'an integer')],
)
def test_an_option_of_another_type_is_named(dataset, name, options, words):
    dataset.name, dataset.options, dataset.texture_source = name, options, 'colour'
    with pytest.raises(UserError, match=f'{options}, expected {words}'):
        inputs.load(**dataset)


def test_a_folder_may_be_named_as_a_number(dataset, tmp_path):
    write_image(tmp_path / 'lines' / '2023' / '0.png', 5)
    dataset.root, dataset.options, dataset.texture_source = str(tmp_path / 'lines'), 'normal=2023', 'colour'
    assert len(inputs.load(**dataset).normals) == 1


def test_textures_that_are_not_there_are_told_from_images(dataset):
    dataset.texture_root = 'nowhere'
    with pytest.raises(UserError, match=r"'nowhere'.*texture_root"):
        inputs.load(**dataset)
