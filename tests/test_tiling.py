"""Tiles cover an image, and their maps come together without seams."""

import numpy as np
import pytest
from scipy import ndimage

from draem_jax.detection import tiling
from draem_jax.model import scoring

RANDOM = np.random.default_rng(0)
SHAPES = [(32, 48), (33, 49), (100, 150), (31, 200), (200, 20), (1, 1), (257, 48)]


@pytest.mark.parametrize('length', [1, 31, 32, 33, 56, 57, 100, 1999])
def test_weights_of_all_tiles_add_up_to_one_at_every_pixel(length):
    total = np.zeros(max(length, 32))
    for start, weights in zip(tiling.starts(length, 32), tiling.weights(length, 32), strict=True):
        assert (weights > 0).all()
        total[start : start + 32] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize('length', [32, 33, 56, 57, 100, 1999])
def test_tiles_reach_both_ends_and_overlap_by_a_quarter(length):
    starts = tiling.starts(length, 32)
    assert starts[0] == 0
    assert starts[-1] == length - 32
    assert (np.diff(starts) <= 24).all()


@pytest.mark.parametrize('shape', SHAPES)
def test_tiles_of_a_picture_put_together_give_the_picture(shape):
    picture = RANDOM.uniform(0, 1, (*shape, 1)).astype(np.float32)
    tiles = tiling.cut(picture, (32, 48))
    assert len(tiles) == tiling.count(shape, (32, 48))
    assert {tile.shape for tile in tiles} <= {(32, 48, 1), (32, 48)}
    whole = tiling.blend([tile.reshape(32, 48) for tile in tiles], shape, (32, 48))
    np.testing.assert_allclose(whole, picture[..., 0], atol=1e-6)


def test_an_image_of_the_size_of_a_tile_is_its_only_tile_and_its_map_stays_as_it_is():
    image = RANDOM.integers(0, 256, (32, 48, 3), np.uint8)
    (tile,) = tiling.cut(image, (32, 48))
    np.testing.assert_array_equal(tile, image)
    values = RANDOM.uniform(0, 1, (32, 48)).astype(np.float32)
    np.testing.assert_array_equal(tiling.blend([values], (32, 48), (32, 48)), values)


def test_a_small_image_is_continued_by_its_mirror_image():
    image = RANDOM.integers(0, 256, (20, 30, 3), np.uint8)
    (tile,) = tiling.cut(image, (32, 48))
    np.testing.assert_array_equal(tile, np.pad(image, ((0, 12), (0, 18), (0, 0)), mode='reflect'))


def test_two_tiles_that_disagree_meet_in_a_ramp_and_not_in_a_step():
    maps = [np.zeros((32, 32), np.float32), np.ones((32, 32), np.float32)]
    row = tiling.blend(maps, (32, 48), (32, 32))[0]  # The tiles overlap from column 16 to 31.
    assert (row[:16] == 0).all()
    assert (row[32:] == 1).all()
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 0.15


@pytest.mark.parametrize('window', [1, 5, 21])
def test_highest_mean_is_the_score_of_the_whole_map(window):
    values = RANDOM.uniform(0, 1, (40, 57)).astype(np.float32)
    highest = tiling.highest_mean(values, window)
    expected = ndimage.uniform_filter(values.astype(np.float64), window, mode='constant').max()
    assert highest == pytest.approx(expected, rel=1e-6)
    assert highest == pytest.approx(float(scoring.image_score(values[None], window)[0]), rel=1e-5)
