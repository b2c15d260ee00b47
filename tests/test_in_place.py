"""The base builder: records and examples, the splits of TFDS, and that the user's files stay as they are."""

import os
import pickle

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from data.sets.in_place import InPlaceBuilder, Record, read
from draem_jax.errors import UserError

_RNG = np.random.default_rng(0)


class Letters(InPlaceBuilder, skip_registration=True):
    """Ten training images, and a test split with two defect types of which one has masks."""

    def _find_records(self, root):
        def record(name, defect_type='good', mask=None):
            mask = mask and os.path.join(root, mask)
            return Record(os.path.join(root, name), mask, int(defect_type != 'good'), defect_type, name)

        test = [record('a.png', 'crack', 'a_mask.png'), record('b.png', 'stain'), record('c.png')]
        return {'train': [record(f'{number}.png') for number in range(10)], 'test': test}


def _write(path, array):
    PIL.Image.fromarray(array).save(path)
    return array


@pytest.fixture
def root(tmp_path):
    for number in range(10):
        _write(tmp_path / f'{number}.png', _RNG.integers(0, 256, (8, 6 + number, 3), dtype=np.uint8))
    for name in 'abc':
        _write(tmp_path / f'{name}.png', _RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8))
    _write(tmp_path / 'a_mask.png', _RNG.integers(0, 2, (8, 6), dtype=np.uint8) * 255)
    return tmp_path


def _state(folder):
    """Names, contents and times of everything in a folder."""
    return {
        (path.name, path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else path.name
        for path in folder.rglob('*')
    }


def test_read_gives_what_pillow_reads(root):
    example = read(Letters(data_dir=root).records('test')[0])
    np.testing.assert_array_equal(example.pop('image'), np.asarray(PIL.Image.open(root / 'a.png')))
    np.testing.assert_array_equal(example.pop('mask')[..., 0], np.asarray(PIL.Image.open(root / 'a_mask.png')))
    assert example == {'label': 1, 'defect_type': 'crack', 'filename': 'a.png', 'has_mask': True}


def test_a_missing_mask_is_all_zero_and_told_from_a_known_empty_one(root):
    crack, stain, good = (read(record, (5, 7)) for record in Letters(data_dir=root).records('test'))
    assert [example['has_mask'] for example in (crack, stain, good)] == [True, False, True]
    for example in (crack, stain, good):
        assert example['image'].shape == (5, 7, 3)
        assert example['mask'].shape == (5, 7, 1)
        assert example['image'].dtype == example['mask'].dtype == np.uint8
    assert crack['mask'].any()
    assert not stain['mask'].any()
    assert not good['mask'].any()


def test_mask_of_another_size_than_its_image_is_refused_with_both_names_and_sizes(root):
    _write(root / 'a_mask.png', np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"a_mask\.png' is 8 x 6 .*a\.png' is 6 x 8"):
        read(Letters(data_dir=root).records('test')[0], (16, 16))


@pytest.mark.parametrize(
    ('split', 'numbers'),
    [
        ('train', range(10)),
        ('train[40%:]', range(4, 10)),
        ('train[:3]', range(3)),
        ('train[-2:]', range(8, 10)),
        ('train[:10%]+train[80%:]', [0, 8, 9]),
    ],
)
def test_records_of_a_slice(root, split, numbers):
    records = Letters(data_dir=root).records(split)
    assert [record.filename for record in records] == [f'{number}.png' for number in numbers]


def test_records_of_two_splits_together(root):
    builder = Letters(data_dir=root)
    assert builder.records('train+test') == builder.records('train') + builder.records('test')


def test_unknown_split_is_refused_with_those_there_are(root):
    with pytest.raises(UserError, match=r"No split 'validation'.*(train, test|test, train)"):
        Letters(data_dir=root).records('validation')


def test_root_must_be_given():
    with pytest.raises(UserError, match='data_dir'):
        Letters()


def test_builder_survives_pickling(root):
    builder = Letters(data_dir=root)
    assert pickle.loads(pickle.dumps(builder)).records('test') == builder.records('test')


@pytest.mark.parametrize('mode', list(tfds.download.GenerateMode))
def test_nothing_is_ever_written_or_deleted(root, mode):
    before = _state(root)
    builder = Letters(data_dir=root)
    assert not builder.is_prepared()
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(download_mode=mode))
    assert not builder.is_prepared()
    assert _state(root) == before


def test_as_dataset_gives_the_examples_of_read_in_order(root):
    builder = Letters(data_dir=root)
    before = _state(root)
    for split in ('train[70%:]', 'test'):
        dataset = builder.as_dataset(split=split, shuffle_files=True)
        expected = [read(record) for record in builder.records(split)]
        examples = list(tfds.as_numpy(dataset))
        assert len(dataset) == len(examples) == len(expected)
        for example, wanted in zip(examples, expected, strict=True):
            assert example['filename'].decode() == wanted['filename']
            assert example['defect_type'].decode() == wanted['defect_type']
            for name in ('image', 'mask', 'label', 'has_mask'):
                np.testing.assert_array_equal(example[name], wanted[name])
    assert _state(root) == before
