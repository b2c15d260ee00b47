"""Masks: their distribution, their bounds, and what confines them."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from configs import default
from data.synthesis import simplex
from data.synthesis.masks import SOURCES, draw_mask, draw_rectangle, foreground, largest_cells_log2, noticeable

MASK_OPTIONS = {
    'source': 'perlin',
    'threshold': (0.5, 0.5),
    'max_cells_log2': 5,
    'min_cell_size': 2,
    'rotation_degrees': 90.0,
}


def draw_masks(count, size, **options):
    def draw(position):
        return draw_mask(tf.stack([tf.constant(1, tf.int64), position]), size, size, **(MASK_OPTIONS | options))

    positions = tf.data.Dataset.range(count)
    return np.stack(list(positions.map(draw, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator()))


def test_mask_areas_are_those_of_the_published_code():
    # 11,938 masks of the authors' code: 5.2 % empty, the others 4.7 % in the median, 1.8 and 9.4 % at 5 and 95 %.
    areas = 100.0 * draw_masks(5000, 256).mean(axis=(1, 2, 3))
    assert 100.0 * (areas == 0).mean() == pytest.approx(5.2, abs=1.0)
    low, median, high = np.percentile(areas[areas > 0], [5, 50, 95])
    assert median == pytest.approx(4.7, abs=0.4)
    assert low == pytest.approx(1.8, abs=0.3)
    assert high == pytest.approx(9.4, abs=0.8)


def test_number_of_cells_is_capped_on_small_images():
    largest = {size: int(largest_cells_log2(size, 5, 4)) for size in (32, 63, 64, 100, 128, 256, 1024)}
    assert largest == {32: 3, 63: 3, 64: 4, 100: 4, 128: 5, 256: 5, 1024: 5}


def test_masks_at_64_pixels_have_as_many_regions_as_those_of_the_published_code():
    # Their noise has up to 32 cells a side there too: 11.5 regions in the median of the masks that are not empty.
    assert default.get_config().synthesis.min_cell_size == MASK_OPTIONS['min_cell_size']
    regions = [scipy.ndimage.label(mask[..., 0], np.ones((3, 3)))[1] for mask in draw_masks(3000, 64) if mask.any()]
    assert np.median(regions) == pytest.approx(11.5, abs=1.5)


def test_large_cells_make_few_regions():
    def most_regions(**options):
        return max(scipy.ndimage.label(mask[..., 0])[1] for mask in draw_masks(60, 32, **options))

    assert most_regions(min_cell_size=32) <= 2  # one cell
    assert most_regions(min_cell_size=2) > 8  # up to 16 x 16


def test_random_threshold_lies_between_its_bounds():
    least, most, between = (draw_masks(40, 64, threshold=t) for t in ((0.7, 0.7), (0.2, 0.2), (0.2, 0.7)))
    assert (least <= between).all()
    assert (between <= most).all()
    assert least.sum() < between.sum() < most.sum()


def test_rotation_leaves_the_corners_of_a_mask_empty():
    masks = draw_masks(200, 64, threshold=(0.0, 0.0))
    assert masks.mean() == pytest.approx(0.4, abs=0.1)
    assert masks[:, 0, 0].mean() < 0.15


def test_rectangles_are_full_and_sized_as_in_cutpaste():
    for i in range(50):
        mask = draw_rectangle(tf.constant([2, i], tf.int64), 120, 90)[..., 0].numpy()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.018 < mask.mean() < 0.16


@pytest.mark.parametrize('source', SOURCES)
def test_masks_of_every_source_are_zeros_and_ones_and_a_function_of_the_key(source):
    first, again = (draw_masks(30, 64, source=source) for _ in range(2))
    assert first.shape == (30, 64, 64, 1)
    assert first.dtype == np.uint8
    assert set(np.unique(first)) == {0, 1}
    assert len({mask.tobytes() for mask in first}) > 25
    np.testing.assert_array_equal(first, again)


def test_simplex_masks_cover_about_as_much_as_perlin_masks():
    perlin, simplex_noise = (draw_masks(600, 64, source=source).mean() for source in ('perlin', 'simplex'))
    assert simplex_noise == pytest.approx(perlin, rel=0.15)


def test_simplex_fields_have_the_scales_asked_for():
    rng = np.random.default_rng(0)
    for cells_y, cells_x in [(2, 16), (16, 2)]:
        field = np.mean(
            [np.abs(np.fft.rfft2(simplex.noise(rng, cells_y, cells_x, (96, 96)))) for _ in range(20)], axis=0
        )
        field[0, 0] = 0.0
        y, x = np.indices(field.shape)
        y = np.minimum(y, 96 - y)
        # The mean frequency along an axis grows with its cells.
        mean_y, mean_x = ((field**2 * axis).sum() / (field**2).sum() for axis in (y, x))
        assert (mean_y > 3 * mean_x) == (cells_y > cells_x)
        assert 0.3 < max(mean_y, mean_x) / 16 < 1.2


def test_a_union_covers_nearly_what_two_independent_masks_do():
    single, union = (draw_masks(600, 64, source=source).mean() for source in ('perlin', 'union'))
    assert union == pytest.approx(1 - (1 - single) ** 2, rel=0.1)


def object_on_background(background, thing):
    image = np.full((64, 64, 3), background, np.uint8)
    image[20:44, 16:40] = thing
    return image


@pytest.mark.parametrize(('background', 'thing'), [(0, 200), (200, 40), ((10, 200, 10), (10, 10, 200))])
def test_foreground_is_the_object_whatever_the_background(background, thing):
    front = foreground(tf.constant(object_on_background(background, thing)), 20).numpy()[..., 0]
    assert front[22:42, 18:38].all()
    outside = np.ones_like(front, bool)
    outside[18:46, 14:42] = False
    assert not front[outside].any()


def test_foreground_closes_small_gaps_and_leaves_large_ones():
    image = object_on_background(0, 200)
    image[30:32, 16:40] = 0
    assert foreground(tf.constant(image), 20).numpy()[30:32, 18:38].all()
    image[26:38, 22:34] = 0
    assert not foreground(tf.constant(image), 20).numpy()[30:34, 26:30].any()


def test_a_plain_image_has_no_foreground():
    assert not foreground(tf.fill([64, 48, 3], tf.constant(90, tf.uint8)), 5).numpy().any()


def test_what_cannot_be_noticed_leaves_the_mask():
    image = np.full((1, 4, 3), 100, np.uint8)
    augmented = image.copy()
    augmented[0, 1, 2], augmented[0, 2, 0], augmented[0, 3] = 95, 109, 90
    mask = np.array([0, 1, 1, 1], np.uint8).reshape(1, 4, 1)
    corrected = noticeable(tf.constant(mask), tf.constant(augmented), tf.constant(image), 10).numpy()
    assert corrected.ravel().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize('source', ['perlin', 'simplex'])
def test_noise_begins_at_the_smallest_number_of_cells(source):
    options = {'source': source, 'max_cells_log2': 3, 'rotation_degrees': 0.0, 'threshold': (0.1, 0.1)}

    def regions(**smallest):
        return np.mean([scipy.ndimage.label(mask[..., 0])[1] for mask in draw_masks(200, 64, **options, **smallest)])

    # 8 cells a side make some 64 hills and valleys.
    assert regions() < 8
    assert regions(min_cells_log2=3) > 12


def test_perlin_noise_from_two_cells_on_vanishes_in_the_middle():
    options = {'threshold': (0.01, 0.01), 'rotation_degrees': 0.0, 'max_cells_log2': 3}
    assert draw_masks(60, 64, **options)[:, 32, 32].any()
    assert not draw_masks(60, 64, min_cells_log2=1, **options)[:, 32, 32].any()
