"""Defect regions against SciPy's labels and by hand."""

import numpy as np
from scipy import ndimage

from draem_jax.detection import regions


def test_boxes_and_area_of_two_blocks():
    values = np.zeros((20, 30), np.float32)
    values[2:5, 4:10] = 0.9
    values[10:18, 20:29] = 0.5
    assert regions.find_regions(values, 0.5) == (((20, 10, 9, 8), (4, 2, 6, 3)), 72 + 18)
    assert regions.find_regions(values, 0.6) == (((4, 2, 6, 3),), 18)


def test_no_region_where_nothing_reaches_the_threshold():
    assert regions.find_regions(np.full((8, 8), 0.2, np.float32), 0.3) == ((), 0)


def test_regions_that_touch_at_a_corner_are_one():
    values = np.zeros((6, 6), np.float32)
    values[1, 1] = values[2, 2] = 1
    assert regions.find_regions(values, 0.5) == (((1, 1, 2, 2),), 2)


def test_regions_of_noise_are_those_of_scipy():
    values = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(90, 130)), 2).astype(np.float32)
    threshold = 0.1
    labels, number = ndimage.label(values >= np.float32(threshold), structure=np.ones((3, 3)))
    expected = {
        (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        for rows, columns in ndimage.find_objects(labels)
    }
    boxes, area = regions.find_regions(values, threshold)
    assert number == len(boxes) > 5
    assert set(boxes) == expected
    assert area == (labels > 0).sum()
    sizes = [(labels == k).sum() for k in range(1, number + 1)]
    largest = ndimage.find_objects(labels)[int(np.argmax(sizes))]
    assert boxes[0][:2] == (largest[1].start, largest[0].start)


def test_a_pixel_at_the_threshold_belongs_to_the_defect():
    value = np.float32(0.1)  # Larger than the float64 0.1, and the next one below it is smaller.
    assert regions.find_regions(np.full((1, 1), value), float(value))[1] == 1
    assert regions.find_regions(np.full((1, 1), np.nextafter(value, np.float32(0))), 0.1)[1] == 0
