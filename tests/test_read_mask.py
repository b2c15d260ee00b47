"""Masks as people have them: classes, colours, rims, alpha channels, inversion."""

import numpy as np
import PIL.Image
import pytest

from draem_jax import images
from draem_jax.errors import UserError

LARGE, SMALL = np.zeros((2, 96, 96), bool)
LARGE[10:40, 10:40] = SMALL[60:64, 60:64] = True
TOUCHING = np.zeros((96, 96), bool)
TOUCHING[10:40, 40:52] = True
BOTH = LARGE | SMALL


def save(folder, array, name='mask.png', **options):
    PIL.Image.fromarray(np.asarray(array, np.uint8)).save(folder / name, **options)
    return folder / name


def read(path, **options):
    """Which pixels are defective, and the kinds of the remarks."""
    mask, remarks = images.examine_mask(path, **options)
    np.testing.assert_array_equal(mask, images.read_mask(path, **options))
    assert mask.dtype == np.uint8
    return mask > 127.5, list(remarks)


@pytest.mark.parametrize(('large', 'small'), [(1, 3), (3, 1), (1, 255), (100, 250), (128, 255), (10, 11)])
def test_each_of_few_values_is_a_defect_and_is_remarked_upon(tmp_path, large, small):
    mask, remarks = read(save(tmp_path, large * LARGE + small * SMALL))
    np.testing.assert_array_equal(mask, BOTH)
    assert remarks == ['mask of several values']


def test_each_colour_is_a_defect(tmp_path):
    colours = np.zeros((96, 96, 3))
    colours[LARGE], colours[SMALL] = (51, 0, 102), (250, 50, 83)
    mask, remarks = read(save(tmp_path, colours))
    np.testing.assert_array_equal(mask, BOTH)
    assert remarks == ['mask of several values']
    assert 'numbers, not colours' in images.examine_mask(tmp_path / 'mask.png')[1]['mask of several values']


def test_classes_that_touch_are_defects_too(tmp_path):
    mask, remarks = read(save(tmp_path, 1 * LARGE + 2 * TOUCHING))
    np.testing.assert_array_equal(mask, LARGE | TOUCHING)
    assert remarks == ['mask of several values']


def test_the_rims_of_a_resized_mask_are_cut_at_one_half(tmp_path):
    rng = np.random.default_rng(0)
    drawn = np.kron(rng.random((24, 24)) < 0.2, np.ones((8, 8)))  # Shapes of 8 pixels, shifted against the blocks of 4.
    drawn = np.roll(drawn, (1, 2), axis=(0, 1))
    shares = drawn.reshape(48, 4, 48, 4).mean(axis=(1, 3))
    assert len(np.unique(shares)) > 3
    levels = np.rint(255 * shares)
    mask, remarks = read(save(tmp_path, levels))
    np.testing.assert_array_equal(mask, levels > 127.5)
    assert remarks == []


def test_a_jpeg_is_cut_at_one_half_however_few_its_values_are(tmp_path):
    mask, remarks = read(save(tmp_path, 255 * LARGE, 'mask.jpg', quality=90))
    assert (mask != LARGE).mean() < 0.002
    assert remarks == []


@pytest.mark.parametrize(('ids', 'expected'), [([1], LARGE), ([3], SMALL), ([1, 3], BOTH), ([2], LARGE & SMALL)])
def test_ids_choose_which_values_count(tmp_path, ids, expected):
    values = 1 * LARGE + 3 * SMALL
    for array, kind in ((values, 'L'), (np.dstack([values] * 3), 'RGB')):
        np.testing.assert_array_equal(read(save(tmp_path, array, f'{kind}.png'), ids=ids)[0], expected)
    palette = PIL.Image.fromarray(values.astype(np.uint8), 'P')
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])  # A colour for each class, as labelme has it.
    palette.save(tmp_path / 'palette.png')
    np.testing.assert_array_equal(read(tmp_path / 'palette.png', ids=ids)[0], expected)


def test_ids_of_16_bits_are_read_and_colours_are_refused(tmp_path):
    PIL.Image.fromarray((1000 * LARGE + 2000 * SMALL).astype(np.uint16)).save(tmp_path / 'deep.png')
    np.testing.assert_array_equal(read(tmp_path / 'deep.png', ids=[2000])[0], SMALL)
    colours = np.zeros((96, 96, 3))
    colours[LARGE] = (51, 0, 102)
    with pytest.raises(UserError, match=r"Mask '.*mask\.png' holds colours"):
        images.read_mask(save(tmp_path, colours), ids=[1])


@pytest.mark.parametrize('ground', [0, 255])
def test_a_shape_in_the_alpha_channel_is_the_mask(tmp_path, ground):
    mask, remarks = read(save(tmp_path, np.dstack([np.full((96, 96, 3), ground), 255 * LARGE])))
    np.testing.assert_array_equal(mask, LARGE)
    assert remarks == ['mask with alpha']


def test_transparent_pixels_of_a_drawn_mask_are_normal(tmp_path):
    alpha = np.full((96, 96), 255)
    alpha[:, :25] = 0
    visible = LARGE & (alpha > 0)
    mask, remarks = read(save(tmp_path, np.dstack([255 * LARGE] * 3 + [alpha])))
    np.testing.assert_array_equal(mask, visible)
    assert remarks == ['mask with alpha']
    opaque = np.dstack([255 * LARGE] * 3 + [np.full((96, 96), 255)])
    mask, remarks = read(save(tmp_path, opaque))
    np.testing.assert_array_equal(mask, LARGE)
    assert remarks == []


def test_an_inverted_mask_is_remarked_upon_and_the_option_mends_it(tmp_path):
    path = save(tmp_path, 255 * ~LARGE)
    mask, remarks = read(path)
    np.testing.assert_array_equal(mask, ~LARGE)
    assert remarks == ['mask mostly defective']
    mask, remarks = read(path, inverted=True)
    np.testing.assert_array_equal(mask, LARGE)
    assert remarks == []
