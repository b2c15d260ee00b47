"""From files to arrays: every image once, in order, in its place; and what is refused."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from trees import draw_textures, draw_tree, write_image

import data
from data import normals, streaming
from data.sets import in_place
from data.textures import load_textures
from draem_jax import threads
from draem_jax.errors import UserError

SIZE = (32, 64)


class Drawn(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set that TFDS prepares and keeps, as `simulated` is: what `draw_tree` draws."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'mask': tfds.features.Image(shape=(None, None, 1)),
            'label': np.int64,
            'defect_type': tfds.features.Text(),
            'filename': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split):
        for position, record in enumerate(data.make_builder('folder', root=self.source).records(split)):
            example = in_place.read(record)
            example.pop('has_mask')
            yield position, example


@pytest.fixture
def builder(tmp_path):
    return data.make_builder('folder', root=str(draw_tree(tmp_path / 'tree')))


def greys(images):
    """The grey of each image of one grey, [N]; fails on any other image."""
    images = np.stack([images[k] for k in range(len(images))])
    values = images[:, 0, 0, 0]
    np.testing.assert_array_equal(images, np.broadcast_to(values[:, None, None, None], images.shape))
    return values.tolist()


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


def test_a_prepared_data_set_reads_as_the_same_files_in_place_do(builder, tmp_path):
    Drawn.source = builder.data_dir
    drawn = Drawn(data_dir=str(tmp_path / 'prepared'))
    streaming.prepare(drawn)
    for split in ('train', 'test'):
        expected = list(streaming.read_split(builder, split, SIZE))
        found = list(streaming.read_split(drawn, split, SIZE))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.keys() == other.keys()
            for name in other:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_data_set_that_another_process_prepares_meanwhile_is_read(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(Drawn, 'source', builder.data_dir, raising=False)
    slow, fast = Drawn(data_dir=str(tmp_path / 'kept')), Drawn(data_dir=str(tmp_path / 'kept'))
    generate = slow._generate_examples

    def generate_too_late(split):
        yield from generate(split)
        fast.download_and_prepare()

    monkeypatch.setattr(slow, '_generate_examples', generate_too_late)
    streaming.prepare(slow)
    found = [example['filename'] for example in streaming.read_split(slow, 'test', SIZE)]
    assert found == [example['filename'] for example in streaming.read_split(builder, 'test', SIZE)]


def test_files_are_decoded_only_a_bounded_number_ahead(builder, monkeypatch):
    taken = []
    monkeypatch.setattr(threads, 'core_count', lambda: 1)
    monkeypatch.setattr(streaming, 'read', lambda record, size, antialias: record)
    monkeypatch.setattr(builder, 'records', lambda split: (taken.append(k) or k for k in range(1000)))
    examples = streaming.read_split(builder, 'train', SIZE)
    assert next(examples) == 0
    assert len(taken) < 20
    assert list(examples) == list(range(1, 1000))


def test_normals_are_parted_into_training_and_validation_without_loss(builder):
    training, validation, *_ = normals.load_normals(builder, SIZE, validation_fraction=0.25)
    assert (len(training), len(validation)) == (6, 2)
    assert training.dtype == validation.dtype == np.uint8
    assert sorted(greys(training) + greys(validation)) == list(range(8))


def test_the_same_normals_are_held_out_every_time(builder):
    first, second = (normals.load_normals(builder, SIZE, validation_fraction=0.5)[1] for _ in range(2))
    assert greys(first) == greys(second)


def test_without_a_fraction_all_normals_are_trained_on_in_order(builder):
    training, validation, *_ = normals.load_normals(builder, SIZE)
    assert greys(training) == list(range(8))
    assert validation.shape == (0, *SIZE, 3)


@pytest.mark.parametrize('fraction', [0.01, 0.99])
def test_a_fraction_that_leaves_nothing_for_one_of_the_two_is_refused(builder, fraction):
    with pytest.raises(UserError, match=rf'validation_fraction={fraction} of 8 images leaves'):
        normals.load_normals(builder, SIZE, validation_fraction=fraction)


def test_textures_are_found_however_nested_and_take_the_size_asked_for(tmp_path):
    textures = load_textures(str(draw_textures(tmp_path)), SIZE)
    assert textures.dtype == np.uint8
    assert textures.shape == (5, *SIZE, 3)
    assert greys(textures) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(('limit', 'expected'), [(0, 5), (2, 2), (3, 3), (9, 5)])
def test_fewer_textures_are_spread_over_all_of_them(tmp_path, limit, expected):
    found = greys(load_textures(str(draw_textures(tmp_path)), SIZE, limit=limit))
    assert len(set(found)) == expected
    assert (found[0], found[-1]) == (10, 50)


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


def test_an_unreadable_file_in_the_middle_is_named(builder, tmp_path):
    buffer = io.BytesIO()
    PIL.Image.new('RGB', (36, 40)).save(buffer, 'png')
    (tmp_path / 'tree' / 'train' / 'good' / '004.png').write_bytes(buffer.getvalue()[:-20])
    with pytest.raises(UserError, match=r'004\.png'):
        normals.load_normals(builder, SIZE)


def test_textures_smaller_than_the_images_are_enlarged(tmp_path):
    write_image(tmp_path / 'small.png', 90, size=(3, 5))
    assert greys(load_textures(str(tmp_path), SIZE)) == [90]


@pytest.mark.parametrize('cache', ['memory', 'disk', 'none'])
def test_files_that_cannot_be_read_are_passed_over_only_if_asked_for(builder, tmp_path, capsys, cache):
    (tmp_path / 'tree' / 'train' / 'good' / '004.png').write_bytes(b'no image')
    keep = {'cache': cache, 'cache_folder': str(tmp_path / 'kept')}
    training, *_ = normals.load_normals(builder, SIZE, skip_unreadable=True, **keep)
    assert greys(training) == [0, 1, 2, 3, 5, 6, 7]
    said = capsys.readouterr().out
    assert '004.png' in said
    assert '1 of 8 files were passed over' in said
    with pytest.raises(UserError, match=r'004\.png'):
        greys(normals.load_normals(builder, SIZE, **keep)[0])


def test_where_no_file_can_be_read_that_is_said(tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'Of 1 files none can be read.*broken\.png'):
        load_textures(str(tmp_path), SIZE, skip_unreadable=True)


def test_test_images_are_kept_apart_only_where_there_is_no_test(builder, tmp_path):
    assert len(normals.load_normals(builder, SIZE, test_fraction=0.5)[2]) == 0
    for k in range(8):
        write_image(tmp_path / 'flat' / f'{k}.png', k)
    flat = data.make_builder('folder', root=str(tmp_path / 'flat'))
    training, _, test, names = normals.load_normals(flat, SIZE, test_fraction=0.5)
    assert sorted(greys(training) + greys(test)) == list(range(8))
    assert names == {'validation': [], 'test': [f'{grey}.png' for grey in greys(test)]}


def test_images_that_come_later_change_nothing_about_what_is_held_out(builder, tmp_path):
    fractions = {'validation_fraction': 0.25, 'test_fraction': 0.25}
    for k in range(8):
        write_image(tmp_path / 'flat' / f'{k}.png', k)
    *_, names = normals.load_normals(data.make_builder('folder', root=str(tmp_path / 'flat')), SIZE, **fractions)
    write_image(tmp_path / 'flat' / '0_new.png', 99)
    again = data.make_builder('folder', root=str(tmp_path / 'flat'))
    training, validation, test, found = normals.load_normals(again, SIZE, **fractions, pinned=names)
    assert found == names
    assert [f'{grey}.png' for grey in greys(validation)] == names['validation']
    assert [f'{grey}.png' for grey in greys(test)] == names['test']
    assert 99 in greys(training)
    assert len(training) == 5
    (tmp_path / 'flat' / names['test'][0]).unlink()
    with pytest.raises(UserError, match=f"1 of the 2 images .* for the test .*'{names['test'][0]}'"):
        normals.load_normals(data.make_builder('folder', root=str(tmp_path / 'flat')), SIZE, pinned=names)
