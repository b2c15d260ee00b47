"""The drawn data set: reproducible, its masks true, its builder faithful."""

import colorsys
import pathlib

import numpy as np
import pytest

from data.sets.simulated import drawing, fields
from data.sets.simulated.simulated_dataset_builder import Builder
from draem_jax.errors import UserError

DEFECTS = [(category, kind) for category in drawing.CATEGORIES for kind in drawing.kinds(category)]


@pytest.mark.parametrize('category', drawing.CATEGORIES)
def test_an_image_depends_on_its_number_and_not_on_what_was_drawn_before(category):
    first, _ = drawing.draw(category, 7)
    other, _ = drawing.draw(category, 8)
    again, _ = drawing.draw(category, 7)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5
    assert np.abs(first.astype(int) - drawing.draw(category, 7, seed=1)[0]).mean() > 5


@pytest.mark.parametrize('category', drawing.CATEGORIES)
def test_flawless_images_have_an_empty_mask_and_structure(category):
    image, mask = drawing.draw(category, 3)
    assert (image.shape, image.dtype) == ((fields.SIZE, fields.SIZE, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((fields.SIZE, fields.SIZE, 1), np.uint8)
    assert not mask.any()
    # Neighbouring pixels of structure vary together, those of noise do not.
    grey = image.mean(axis=-1)
    grey = grey - grey.mean()
    assert (grey[1:] * grey[:-1]).mean() > 0.6 * grey.var() > 20


@pytest.mark.parametrize(('category', 'kind'), DEFECTS)
def test_a_defect_changes_its_mask_and_nothing_else(category, kind):
    for number in range(2_000, 2_004):
        image, mask = drawing.draw(category, number, kind=kind)
        flawless, _ = drawing.draw(category, number)
        inside = mask[..., 0] == 255
        assert set(np.unique(mask)) == {0, 255}
        assert 0.003 < inside.mean() < 0.15
        change = np.abs(image.astype(int) - flawless).max(axis=-1)
        assert not change[~inside].any()
        # Where a missing thread would have run below another one, nothing changes.
        assert (change[inside] > 0).mean() > 0.65
        assert change[inside].mean() > 8


@pytest.mark.parametrize('category', drawing.CATEGORIES)
def test_splits_share_no_surface_and_hold_what_their_names_say(category):
    train, test = drawing.contents(category, 'train'), drawing.contents(category, 'test')
    numbers = [number for _, _, number in train + test]
    assert len(set(numbers)) == len(numbers) == 200 + 40 + 5 * 13
    assert len({filename for filename, _, _ in train + test}) == len(numbers)
    assert all(filename.split('/')[:2] == ['train', 'good'] and kind is None for filename, kind, _ in train)
    assert all(filename.split('/')[:2] == ['test', kind or 'good'] for filename, kind, _ in test)


def test_builder_returns_what_was_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(drawing, 'TRAIN_IMAGES', 2)
    monkeypatch.setattr(drawing, 'GOOD_TEST_IMAGES', 1)
    monkeypatch.setattr(drawing, 'TEST_IMAGES_PER_KIND', 1)
    builder = Builder(config='wood', data_dir=tmp_path)
    builder.download_and_prepare()
    assert {split: builder.info.splits[split].num_examples for split in ('train', 'test')} == {'train': 2, 'test': 6}
    examples = list(builder.as_dataset(split='test').as_numpy_iterator())
    for example, (filename, kind, number) in zip(examples, drawing.contents('wood', 'test'), strict=True):
        image, mask = drawing.draw('wood', number, kind=kind)
        np.testing.assert_array_equal(example['image'], image)
        np.testing.assert_array_equal(example['mask'], mask)
        assert example['filename'].decode() == filename
        assert example['defect_type'].decode() == (kind or 'good')
        assert example['label'].dtype == np.int64
        assert example['label'] == mask.any()


def test_a_damaged_description_of_the_drawn_files_names_the_folder_to_delete(monkeypatch, tmp_path):
    for name in ('TRAIN_IMAGES', 'GOOD_TEST_IMAGES', 'TEST_IMAGES_PER_KIND'):
        monkeypatch.setattr(drawing, name, 1)
    builder = Builder(config='wood', data_dir=tmp_path)
    builder.download_and_prepare()
    path = pathlib.Path(builder.data_dir, 'dataset_info.json')
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=rf"The prepared data set in '{path.parent}' cannot be read: .*Delete this"):
        Builder(config='wood', data_dir=tmp_path)


def test_hue_follows_the_hexcone():
    for hue, saturation, value in [(0.0, 1.0, 1.0), (0.1, 0.5, 0.8), (0.45, 0.2, 0.6), (0.7, 0.9, 0.3), (0.95, 0.4, 1)]:
        drawn = fields.draw_hue(np.random.default_rng(0), (hue, hue), (saturation, saturation), (value, value))
        np.testing.assert_allclose(drawn, colorsys.hsv_to_rgb(hue, saturation, value), atol=1e-12)


def test_tables_are_read_by_linear_interpolation_without_end():
    table = np.array([1.0, 4.0, 2.0, -3.0])
    position = np.linspace(-6, 9, 101)
    np.testing.assert_allclose(fields.along(table, position), np.interp(position, np.arange(4), table, period=4))


def test_a_line_without_bend_is_as_long_and_as_far_as_geometry_says():
    distance, taper = fields.curve(np.random.default_rng(0), 40.0, angle=0.6, bend=0.0)
    # Moving one pixel along x moves away from a line at angle 0.6 by its sine.
    np.testing.assert_allclose(np.diff(distance, axis=1), -np.sin(0.6), atol=1e-9)
    np.testing.assert_allclose(np.diff(distance, axis=0), np.cos(0.6), atol=1e-9)
    on_line = (np.abs(distance) < 5) & (taper > 0)
    assert on_line.sum() == pytest.approx(10 * 40, rel=0.03)


def test_a_smooth_blob_has_the_area_of_its_ellipse():
    depth = fields.blob(np.random.default_rng(0), (64, 64), 20, roughness=0, elongation=1.5)
    assert (depth > 0).sum() == pytest.approx(np.pi * 20**2, rel=0.02)
    assert depth.max() == pytest.approx(1)
