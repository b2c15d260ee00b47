import inspect

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from configs import default
from data import synthesis
from data.augment import OPERATIONS
from data.synthesis import check_options, draw_perlin_mask, draw_rectangle, largest_cells_log2, make_example
from draem_jax.errors import UserError

PRESETS = {name: dict(default.get_config(name).synthesis) for name in default.PRESETS}
MASK_OPTIONS = {'threshold': (0.5, 0.5), 'max_cells_log2': 5, 'min_cell_size': 4, 'rotation_degrees': 90.0}
ALWAYS = {'anomaly_probability': 1.0, 'rotation_probability': 0.0}


def random_images(count, height=32, width=32, seed=0):
    """Bright smooth colours, so that a black corner shows and no texture equals an image."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(100, 256, (count, 4, 4, 3))
    return tf.constant(scipy.ndimage.zoom(coarse, (1, height / 4, width / 4, 1), order=1).astype(np.uint8))


IMAGES, TEXTURES = random_images(5), random_images(7, seed=1)


def examples(count, images=IMAGES, textures=TEXTURES, seed=3, first=0, threads=1, batch_size=16, **options):
    """The examples from position `first` on, stacked, through tf.data."""
    positions = tf.data.Dataset.range(first, first + count)
    made = positions.map(lambda p: make_example(images, textures, seed, p, **options), num_parallel_calls=threads)
    batches = list(made.batch(batch_size).as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.fixture(scope='module')
def traced():
    """300 examples of the official preset with what they were made from."""
    return examples(300, trace=True)


def test_example_is_a_function_of_seed_and_position(traced):
    expected = traced
    replayed = examples(20, first=17, threads=4, batch_size=7)
    for name, values in replayed.items():
        np.testing.assert_array_equal(values, expected[name][17:37])
    eager = make_example(IMAGES, TEXTURES, 3, tf.constant(5, tf.int64))
    for name, value in eager.items():
        np.testing.assert_array_equal(value, expected[name][5])


def test_another_seed_makes_other_examples():
    one, other = (examples(64, seed=seed, operation_count=0)['augmented'] for seed in (3, 4))
    # The same only where both draw the same of the five images, clean and not rotated.
    assert (one == other).all(axis=(1, 2, 3)).mean() < 0.25


def test_tracing_changes_no_example(traced):
    for name, values in examples(300).items():
        np.testing.assert_array_equal(values, traced[name])


def test_augmented_image_is_the_published_blend(traced):
    image, texture, mask = (traced[name].astype(np.float64) for name in ('image', 'augmented_texture', 'mask'))
    opacity = traced['opacity'].astype(np.float64)[:, None, None, None]
    expected = (1 - mask) * image + mask * ((1 - opacity) * image + opacity * texture)
    np.testing.assert_allclose(traced['augmented'], expected, rtol=0, atol=0.501)


def test_half_of_the_examples_stay_clean(traced):
    clean = traced['opacity'] == 0.0
    assert clean.mean() == pytest.approx(0.5, abs=0.1)  # 3.5 standard deviations
    assert not traced['mask'][clean].any()
    np.testing.assert_array_equal(traced['augmented'][clean], traced['image'][clean])


def test_three_in_ten_images_are_rotated_and_the_others_are_as_given(traced):
    known = {image.tobytes() for image in IMAGES.numpy()}
    given = np.array([image.tobytes() in known for image in traced['image']])
    assert given.mean() == pytest.approx(0.7, abs=0.1)
    # Black corners; a turn of a degree or two only darkens those of so small an image.
    assert np.mean([(image == 0).any() for image in traced['image'][~given]]) > 0.9


def test_every_image_and_texture_is_drawn_as_often(traced):
    for drawn, source in ((traced['image'], IMAGES), (traced['texture'], TEXTURES)):
        counts = np.array([(drawn == image).all(axis=(1, 2, 3)).sum() for image in source.numpy()])
        assert (np.abs(counts - counts.mean()) < 4 * np.sqrt(counts.mean())).all()


def test_opacity_is_uniform_in_its_range():
    opacity = examples(400, trace=True, operation_count=0, opacity=(0.2, 1.0), **ALWAYS)['opacity']
    assert 0.2 < opacity.min() < 0.22
    assert 0.98 < opacity.max() <= 1.0
    assert opacity.mean() == pytest.approx(0.6, abs=0.05)


def test_operations_are_different_and_every_one_is_equally_likely():
    draw = tf.function(lambda key: synthesis._draw_operations(key, 10, 3)[0])
    orders = np.array([draw(tf.constant([7, i], tf.int64)) for i in range(1000)])
    assert all(len(set(order)) == 3 for order in orders.tolist())
    for slot in range(3):  # 100 expected of each, standard deviation 9.5
        assert np.abs(np.bincount(orders[:, slot], minlength=10) - 100).max() < 40


def test_augmentation_and_opacity_can_be_switched_off():
    plain = examples(32, trace=True, operation_count=0, opacity=(1.0, 1.0), **ALWAYS)
    np.testing.assert_array_equal(plain['augmented_texture'], plain['texture'])
    np.testing.assert_array_equal(plain['augmented'], np.where(plain['mask'] > 0, plain['texture'], plain['image']))


def test_without_textures_an_anomaly_has_one_plain_colour():
    plain = examples(32, textures=None, opacity=(1.0, 1.0), mask_source='rectangle', **ALWAYS)
    pairs = zip(plain['augmented'], plain['mask'][..., 0] > 0, strict=True)
    colours = [set(map(tuple, image[inside])) for image, inside in pairs]
    assert all(len(colour) == 1 for colour in colours)
    assert len(set.union(*colours)) > 30


def test_clean_examples_do_not_look_at_the_textures():
    no_textures = tf.zeros([0, 32, 32, 3], tf.uint8)
    assert not examples(8, textures=no_textures, anomaly_probability=0.0)['mask'].any()


@pytest.mark.parametrize('options', PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize(('height', 'width'), [(32, 32), (67, 101)])
def test_any_size_works_and_values_stay_in_range(height, width, options):
    images, textures = random_images(2, height, width), random_images(2, height, width, seed=1)
    made = examples(24, images, textures, **options)
    assert made['image'].shape == made['augmented'].shape == (24, height, width, 3)
    assert made['mask'].shape == (24, height, width, 1)
    assert all(values.dtype == np.uint8 for values in made.values())
    assert set(np.unique(made['mask'])) == {0, 1}


def test_one_graph_serves_every_image_size():
    images, position = tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64)

    @tf.function(input_signature=[images, images, position])
    def example(images, textures, position):
        return make_example(images, textures, 3, position)

    for name, value in example(IMAGES, TEXTURES, 0).items():
        assert value.shape == (32, 32, 1 if name == 'mask' else 3)
    images, textures = random_images(3, 45, 70), random_images(3, 45, 70, seed=1)
    expected = examples(6, images, textures)
    for position in range(6):
        for name, value in example(images, textures, position).items():
            np.testing.assert_array_equal(value, expected[name][position])


def test_one_colour_images_and_a_single_texture_work():
    grey = tf.fill([1, 32, 32, 3], tf.constant(90, tf.uint8))
    made = examples(32, images=grey, textures=TEXTURES[:1], **ALWAYS)
    np.testing.assert_array_equal(made['augmented'][made['mask'][..., 0] == 0], 90)


def draw_masks(count, size, **options):
    masks = tf.data.Dataset.range(count).map(
        lambda i: draw_perlin_mask(tf.stack([tf.constant(1, tf.int64), i]), size, size, **(MASK_OPTIONS | options))
    )
    return np.stack(list(masks.as_numpy_iterator()))


def test_mask_areas_are_those_of_the_published_code():
    # 11,938 masks of the authors' code: 5.2 % empty, the others 4.7 % in the median, 1.8 and 9.4 % at 5 and 95 %.
    # 600 masks here: the tolerances are three to four standard deviations of such a sample.
    areas = 100.0 * draw_masks(600, 256).mean(axis=(1, 2, 3))
    assert 100.0 * (areas == 0).mean() == pytest.approx(5.2, abs=3.0)
    low, median, high = np.percentile(areas[areas > 0], [5, 50, 95])
    assert median == pytest.approx(4.7, abs=0.5)
    assert low == pytest.approx(1.8, abs=0.6)
    assert high == pytest.approx(9.4, abs=1.2)


def test_number_of_cells_is_capped_on_small_images():
    found = {size: int(largest_cells_log2(size, 5, 4)) for size in (32, 63, 64, 100, 128, 256, 1024)}
    assert found == {32: 3, 63: 3, 64: 4, 100: 4, 128: 5, 256: 5, 1024: 5}


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


def test_default_options_are_the_official_preset():
    parameters = inspect.signature(make_example).parameters
    assert {name: parameters[name].default for name in PRESETS['official']} == PRESETS['official']
    assert set(PRESETS['official']) == set(PRESETS['paper']) == set(inspect.signature(check_options).parameters)


@pytest.mark.parametrize('options', PRESETS.values(), ids=PRESETS)
def test_presets_pass_their_own_check(options):
    check_options(**options)
    assert set(options['operations']) <= set(OPERATIONS)


@pytest.mark.parametrize(
    ('field', 'value', 'expected'),
    [
        ('anomaly_probability', 1.5, 'between 0 and 1'),
        ('rotation_probability', -0.1, 'between 0 and 1'),
        ('rotation_degrees', 270.0, 'between 0 and 180'),
        ('mask_rotation_degrees', -1.0, 'between 0 and 180'),
        ('opacity', (0.8, 0.2), 'lowest, highest'),
        ('opacity', (0.0, 0.0), 'above 0'),
        ('opacity', (0.5,), 'lowest, highest'),
        ('operations', ('invert', 'blur', 'rotate'), 'posterize'),
        ('operations', ('invert', 'invert', 'rotate'), 'every name once'),
        ('operations', ('invert', 'rotate'), '0 to 2'),
        ('operation_count', 11, '0 to 10'),
        ('mask_source', 'circle', 'perlin, rectangle'),
        ('mask_threshold', (-0.1, 0.5), 'within 0'),
        ('max_cells_log2', 20, '0 to 8'),
        ('min_cell_size', 1, 'at least 2'),
    ],
)
def test_impossible_options_name_the_field_and_what_is_possible(field, value, expected):
    with pytest.raises(UserError, match=r'^synthesis\.\w+: expected .*, found .*\.$') as error:
        check_options(**(PRESETS['official'] | {field: value}))
    assert expected in str(error.value)
    assert '\n' not in str(error.value)


def test_smallest_choices_work():
    made = examples(8, operations=(), operation_count=0, max_cells_log2=0, **ALWAYS)
    assert made['mask'].any()


def test_textures_of_another_size_are_refused():
    with pytest.raises(ValueError, match='incompatible'):
        make_example(IMAGES, random_images(2, 64, 64), 0, tf.constant(0, tf.int64))


def test_float_images_are_refused():
    with pytest.raises(AssertionError, match='uint8'):
        make_example(tf.cast(IMAGES, tf.float32), TEXTURES, 0, tf.constant(0, tf.int64))


def test_match_grey_pastes_grey_into_grey_images_only():
    coloured = IMAGES.numpy()
    grey = np.repeat(coloured[..., :1], 3, axis=-1)
    options = {'match_grey': True, **ALWAYS}
    made = examples(20, images=tf.constant(grey), **options)
    assert (made['augmented'] == made['augmented'][..., :1]).all()
    assert (made['augmented'] != made['image']).any()
    for name, values in examples(20, **options).items():
        np.testing.assert_array_equal(values, examples(20, **ALWAYS)[name])
