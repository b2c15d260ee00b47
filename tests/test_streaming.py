"""From files to examples: every image once, in order, in its place, and batches of one size."""

import errno
import pathlib

import numpy as np
import pytest
from drawn_tree import Drawn, greys
from trees import draw_tree, write_image

import data
from data import prepared, streaming
from draem_jax import threads
from draem_jax.errors import UserError

SIZE = (32, 64)


@pytest.fixture
def builder(tmp_path):
    return data.make_builder('folder', root=str(draw_tree(tmp_path / 'tree')))


def test_count_examples(builder, tmp_path):
    assert streaming.count_examples(builder, 'train') == 8
    assert streaming.count_examples(builder, 'test') == 7
    flat = tmp_path / 'flat'
    write_image(flat / '0.png', 0)
    assert streaming.count_examples(data.make_builder('folder', root=str(flat)), 'test') == 0


def test_examples_come_in_the_order_of_the_records_and_resized(builder):
    examples = list(streaming.read_split(builder, 'test', SIZE))
    assert [example['filename'] for example in examples] == [record.filename for record in builder.records('test')]
    assert greys([example['image'] for example in examples]) == [100, 101, 102, 200, 201, 202, 203]
    assert [example['label'] for example in examples] == [0, 0, 0, 1, 1, 1, 1]
    assert {example['image'].shape for example in examples} == {(*SIZE, 3)}
    assert {example['mask'].shape for example in examples} == {(*SIZE, 1)}


def test_a_prepared_data_set_reads_as_the_same_files_in_place_do(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, 'source', builder.data_dir)
    drawn = Drawn(data_dir=str(tmp_path / 'prepared'))
    prepared.prepare(drawn)
    for split in ('train', 'test'):
        expected = list(streaming.read_split(builder, split, SIZE))
        examples = list(streaming.read_split(drawn, split, SIZE))
        assert len(examples) == len(expected)
        for one, other in zip(examples, expected, strict=True):
            assert one.keys() == other.keys()
            for name in other:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_data_set_that_another_process_prepares_meanwhile_is_read(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, 'source', builder.data_dir)
    slow, fast = Drawn(data_dir=str(tmp_path / 'kept')), Drawn(data_dir=str(tmp_path / 'kept'))
    generate = slow._generate_examples

    def generate_too_late(split):
        yield from generate(split)
        fast.download_and_prepare()

    monkeypatch.setattr(slow, '_generate_examples', generate_too_late)
    prepared.prepare(slow)
    names = [example['filename'] for example in streaming.read_split(slow, 'test', SIZE)]
    assert names == [example['filename'] for example in streaming.read_split(builder, 'test', SIZE)]


DAMAGES = {
    'cut': lambda path: path.write_bytes(path.read_bytes()[:-40]),
    'empty': lambda path: path.write_bytes(b''),
    'bytes': lambda path: path.write_bytes(bytes(range(256))),
    'gone': lambda path: path.unlink(),
}


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('name', ['drawn-train.tfrecord-00000-of-00001', 'dataset_info.json'])
def test_a_damaged_prepared_data_set_names_the_folder_to_delete(builder, tmp_path, monkeypatch, name, damage):
    monkeypatch.setattr(Drawn, 'source', builder.data_dir)
    drawn = Drawn(data_dir=str(tmp_path / 'kept'))
    prepared.prepare(drawn)
    folder = pathlib.Path(drawn.data_dir)
    DAMAGES[damage](folder / name)

    def start():
        # As the builder of `simulated` does, which is opened anew at each start.
        with prepared.explaining_damage(lambda: str(folder)):
            again = Drawn(data_dir=str(tmp_path / 'kept'))
        prepared.prepare(again)
        return list(streaming.read_split(again, 'train', SIZE))

    expected = rf"^The prepared data set in '{folder}' cannot be read: [^\n]+\. Delete this folder[^\n]+$"
    with pytest.raises(UserError, match=expected):
        start()


@pytest.mark.parametrize(
    'error', [OSError(errno.ENOSPC, 'No space left on device'), ConnectionError('Max retries exceeded\nwith url')]
)
def test_a_data_set_that_cannot_be_prepared_says_why_in_one_line(builder, tmp_path, monkeypatch, error):
    def fail(**options):
        raise error

    drawn = Drawn(data_dir=str(tmp_path / 'kept'))
    monkeypatch.setattr(drawn, 'download_and_prepare', fail)
    with pytest.raises(UserError, match=r"^Cannot prepare 'drawn' in '.*': (No space|Max retries).*dataset\.root\.$"):
        prepared.prepare(drawn)


def test_a_users_folder_is_never_to_be_deleted(builder, monkeypatch):
    monkeypatch.setattr(builder.info, '_splits', {})
    prepared.prepare(builder)


def test_files_are_decoded_only_a_bounded_number_ahead(builder, monkeypatch):
    taken = []
    monkeypatch.setattr(threads, 'core_count', lambda: 1)
    monkeypatch.setattr(streaming, 'read', lambda record, *_: record)
    monkeypatch.setattr(builder, 'records', lambda split: (taken.append(k) or k for k in range(1000)))
    examples = streaming.read_split(builder, 'train', SIZE)
    assert next(examples) == 0
    assert len(taken) < 20
    assert list(examples) == list(range(1, 1000))


def test_batches_hold_every_test_image_exactly_once_and_mark_the_filler(builder):
    batches = list(streaming.padded_batches(streaming.read_split(builder, 'test', SIZE), 4))
    assert [len(batch['label']) for batch in batches] == [4, 3]
    for batch in batches:
        assert batch['image'].shape == (4, *SIZE, 3)
        assert batch['mask'].shape == (4, *SIZE, 1)
        assert batch['image'].dtype == batch['mask'].dtype == np.uint8
        assert {len(batch[name]) for name in ('defect_type', 'filename', 'has_mask')} == {len(batch['label'])}
    real = np.concatenate([batch['image'][: len(batch['label'])] for batch in batches])
    assert greys(real) == [100, 101, 102, 200, 201, 202, 203]
    assert greys(batches[1]['image'][3:]) == [0]


def test_masks_of_a_batch_are_where_the_defects_are(builder):
    (batch,) = streaming.padded_batches(streaming.read_split(builder, 'test', SIZE), 7)
    defective = batch['mask'][..., 0] > 127
    assert not defective[:3].any()
    assert defective[3:, : SIZE[0] // 2].all()
    assert not defective[3:, SIZE[0] // 2 :].any()
