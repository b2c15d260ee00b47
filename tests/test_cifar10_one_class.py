"""CIFAR-10, one class against the others, on a tiny CIFAR-10 that TFDS prepares itself; nothing is downloaded."""

import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds

import data
from data import prepared, streaming
from draem_jax.errors import UserError

_TRAIN_LABELS = [3, 0, 3, 9, 3]
_TEST_LABELS = [0, 3, 9, 3]


class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """As TFDS's, with the images above: of one grey each, 10 times the position."""

    VERSION = tfds.builder_cls('cifar10').VERSION
    name = 'cifar10'

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'id': tfds.features.Text(),
                    'image': tfds.features.Image(shape=(32, 32, 3)),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            'train': self._generate_examples('train', _TRAIN_LABELS),
            'test': self._generate_examples('test', _TEST_LABELS),
        }

    def _generate_examples(self, split, labels):
        for k, label in enumerate(labels):
            yield k, {'id': f'{split}_{k}', 'image': np.full((32, 32, 3), 10 * k, np.uint8), 'label': label}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError('The network was asked.')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('tfds')
    Cifar10(data_dir=root).download_and_prepare()
    return root


def load(root, split):
    builder = data.make_builder('cifar10_one_class', 'cat', str(root))
    prepared.prepare(builder)
    return list(streaming.read_split(builder, split, (32, 32)))


def test_training_images_are_those_of_the_class(root):
    examples = load(root, 'train')
    assert [example['filename'] for example in examples] == ['train_0', 'train_2', 'train_4']
    assert [example['image'][0, 0, 0] for example in examples] == [0, 20, 40]
    assert [example['label'] for example in examples] == [0, 0, 0]


def test_test_images_are_all_and_only_the_class_is_normal(root):
    examples = load(root, 'test')
    assert [example['label'] for example in examples] == [1, 0, 1, 0]
    assert [example['defect_type'] for example in examples] == ['airplane', 'good', 'truck', 'good']


def test_only_normal_images_have_a_mask(root):
    examples = load(root, 'test')
    assert [example['has_mask'] for example in examples] == [False, True, False, True]
    assert not any(example['mask'].any() for example in examples)


def test_splits_are_counted_and_can_be_cut(root):
    builder = data.make_builder('cifar10_one_class', 'cat', str(root))
    prepared.prepare(builder)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {'train': 3, 'test': 4}
    cut = builder.as_dataset(split='train[1:]+test[:50%]').as_numpy_iterator()
    assert [example['filename'].decode() for example in cut] == ['train_2', 'train_4', 'test_0', 'test_1']


def test_tfds_load_finds_it(root):
    (first, *_) = tfds.as_numpy(tfds.load('cifar10_one_class/truck', data_dir=root, split='train'))
    assert first['filename'] == b'train_3'


def test_it_never_passes_for_prepared_and_writes_nothing(root):
    before = sorted(root.rglob('*'))
    builder = data.make_builder('cifar10_one_class', 'cat', str(root))
    builder.download_and_prepare()
    assert not builder.is_prepared()
    assert sorted(root.rglob('*')) == before


@pytest.mark.parametrize('name', ['cifar10-train.tfrecord-00000-of-00001', 'dataset_info.json'])
def test_a_damaged_cifar10_names_the_folder_to_delete(tmp_path, name):
    Cifar10(data_dir=tmp_path).download_and_prepare()
    (path,) = tmp_path.rglob(name)
    path.write_bytes(path.read_bytes()[:-40])
    (tmp_path / 'cifar10' / 'mine.txt').write_text('not to be deleted')
    with pytest.raises(UserError, match=rf"The prepared data set in '{path.parent}' cannot be read: .*Delete this"):
        load(tmp_path, 'train')


def test_without_cifar10_nothing_is_fetched_until_asked_for(tmp_path):
    builder = data.make_builder('cifar10_one_class', 'cat', str(tmp_path))
    assert streaming.count_examples(builder, 'test') == 0
    with pytest.raises(UserError, match=r'not prepared in .*--config\.dataset\.root'):
        builder.as_dataset(split='test')
    assert list(tmp_path.iterdir()) == []
