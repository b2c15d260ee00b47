"""The bank of drawn textures: reproducible, varied, no flat surfaces."""

import numpy as np
import pytest

from data import drawn_textures


@pytest.fixture(scope='module')
def textures():
    return drawn_textures.draw_textures(56, 64, seed=3)


def test_textures_depend_on_the_seed_and_their_place_alone(textures):
    np.testing.assert_array_equal(drawn_textures.draw_textures(9, 64, seed=3), textures[:9])
    assert not np.array_equal(drawn_textures.draw_textures(9, 64, seed=4), textures[:9])


def test_textures_are_images_of_the_size_asked_for(textures):
    assert (textures.shape, textures.dtype) == ((56, 64, 64, 3), np.uint8)
    assert drawn_textures.draw_textures(15, (33, 70), seed=0).shape == (15, 33, 70, 3)
    assert drawn_textures.draw_textures(0, 16, seed=0).shape == (0, 16, 16, 3)


@pytest.mark.parametrize('size', [8, 16, 32])
def test_every_family_draws_small_textures(size):
    assert drawn_textures.draw_textures(28, size, seed=0).std(axis=(1, 2)).max(axis=-1).min() > 2


def test_no_two_textures_are_alike_and_none_is_flat(textures):
    values = textures.astype(np.float64)
    distances = np.abs(values[:, None, ::2, ::2] - values[None, :, ::2, ::2]).mean(axis=(2, 3, 4))
    assert distances[~np.eye(len(values), dtype=bool)].min() > 10
    assert values.std(axis=(1, 2)).max(axis=-1).min() > 8


def test_together_they_span_light_and_dark_every_hue_and_every_scale(textures):
    values = textures.astype(np.float64)
    assert (np.percentile(values, 2, axis=(0, 1, 2)) < 15).all()
    assert (np.percentile(values, 98, axis=(0, 1, 2)) > 240).all()
    means = values.mean(axis=(1, 2))
    assert set(means.argmax(axis=-1)) == {0, 1, 2}
    # The share of contrast that is left after averaging 8 x 8 pixels tells the scale.
    grey = values.mean(axis=-1)
    coarse = grey.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).var(axis=(1, 2)) / grey.var(axis=(1, 2))
    assert coarse.min() < 0.1
    assert coarse.max() > 0.8
