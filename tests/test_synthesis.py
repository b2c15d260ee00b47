import collections
import inspect

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from configs import default
from data.banks import COLOUR, SELF
from data.synthesis.example import _draw_operations, make_example, shift
from data.synthesis.operations import OPERATIONS

PRESETS = {name: dict(default.get_config(name).synthesis) for name in default.PRESETS}
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
    """300 examples of the official preset, with what they were made from."""
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
    # Two examples are equal only if both are the same of the five images, clean and not rotated.
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
    # The corners are black, but a rotation of a degree or two only darkens the corners of so small an image.
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
    draw = tf.function(lambda key: _draw_operations(key, 10, 3)[0])
    orders = np.array([draw(tf.constant([7, i], tf.int64)) for i in range(1000)])
    assert all(len(set(order)) == 3 for order in orders.tolist())
    for slot in range(3):  # 100 expected of each, standard deviation 9.5
        assert np.abs(np.bincount(orders[:, slot], minlength=10) - 100).max() < 40


def test_augmentation_and_opacity_can_be_switched_off():
    plain = examples(32, trace=True, operation_count=0, opacity=(1.0, 1.0), **ALWAYS)
    np.testing.assert_array_equal(plain['augmented_texture'], plain['texture'])
    np.testing.assert_array_equal(plain['augmented'], np.where(plain['mask'] > 0, plain['texture'], plain['image']))


def test_an_anomaly_of_source_colour_has_one_plain_colour():
    plain = examples(32, textures=COLOUR, opacity=(1.0, 1.0), mask_source='rectangle', **ALWAYS)
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


def test_default_options_are_the_official_preset():
    parameters = inspect.signature(make_example).parameters
    assert {name: parameters[name].default for name in PRESETS['official']} == PRESETS['official']


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


def test_an_anomaly_of_source_self_is_a_mirrored_shift_of_another_normal_image():
    made = examples(40, textures=SELF, trace=True, operation_count=0, mask_source='rectangle', **ALWAYS)
    images = IMAGES.numpy()
    for image, texture in zip(made['image'], made['texture'], strict=True):
        own = next(k for k in range(len(images)) if (images[k] == image).all())
        # The texture is a window of the symmetric extension, which NumPy computes.
        others = [np.pad(images[k], ((16, 16), (16, 16), (0, 0)), 'symmetric') for k in range(len(images)) if k != own]
        windows = [np.lib.stride_tricks.sliding_window_view(other, (32, 32, 3))[..., 0, :, :, :] for other in others]
        assert any((window == texture).all(axis=(2, 3, 4)).any() for window in windows)


def test_a_single_normal_image_lends_patches_to_itself():
    assert examples(8, images=IMAGES[:1], textures=SELF, **ALWAYS)['mask'].any()


def test_shifting_by_nothing_changes_nothing():
    np.testing.assert_array_equal(
        shift(IMAGES[0], tf.constant(0.0, tf.float64), tf.constant(0.0, tf.float64)), IMAGES[0]
    )


def test_anomalies_stay_on_the_foreground_also_of_rotated_images():
    image = np.full((1, 64, 64, 3), 200, np.uint8)
    image[:, 12:52, 26:38] = 60
    options = {'foreground_threshold': 30, 'anomaly_probability': 1.0, 'mask_threshold': (0.0, 0.0)}
    made = examples(40, tf.constant(image), random_images(3, 64, 64), rotation_probability=0.5, **options)
    front = made['image'][..., 0] < 190
    front &= made['image'][..., 0] > 55  # neither the background nor the black corners
    near = scipy.ndimage.binary_dilation(front, np.ones((1, 5, 5)))
    assert made['mask'].any(axis=(1, 2, 3)).mean() > 0.9
    assert not made['mask'][..., 0][~near].any()


def test_label_correction_clears_the_mask_and_leaves_the_image():
    plain, corrected = (examples(40, label_correction=levels, **ALWAYS) for levels in (0, 25))
    np.testing.assert_array_equal(corrected['augmented'], plain['augmented'])
    change = np.abs(plain['augmented'].astype(int) - plain['image']).max(axis=-1)
    np.testing.assert_array_equal(corrected['mask'][..., 0], plain['mask'][..., 0] * (change >= 25))
    assert corrected['mask'].sum() < plain['mask'].sum()


def test_tracing_tells_the_operations_in_their_order(traced):
    anomalous = traced['opacity'] > 0
    assert (traced['order'][~anomalous] == -1).all()
    assert all(len(set(order)) == 3 for order in traced['order'][anomalous].tolist())
    # These two have no strength, so applying them to the traced texture reproduces the augmented one.
    made = examples(30, trace=True, operations=('invert', 'equalize'), operation_count=2, **ALWAYS)
    for order, texture, expected in zip(made['order'], made['texture'], made['augmented_texture'], strict=True):
        for index in order:
            texture = OPERATIONS[('invert', 'equalize')[index]](tf.constant(texture), None).numpy()
        np.testing.assert_array_equal(texture, expected)


def test_turns_and_flips_make_the_eight_symmetries_of_a_square_and_no_other_image():
    given = IMAGES.numpy()
    symmetries = {
        turned.tobytes(): (k, quarters, mirrored)
        for k, image in enumerate(given)
        for mirrored, seen in enumerate((image, image[:, ::-1]))
        for quarters in range(4)
        for turned in [np.ascontiguousarray(np.rot90(seen, quarters))]
    }
    made = examples(400, quarter_turns=True, flips=True, operation_count=0, rotation_probability=0.0)
    counts = collections.Counter(symmetries[image.tobytes()] for image in made['image'])
    assert len(counts) == 8 * len(given)  # ten of each are expected
    turned = {symmetries[image.tobytes()][1:] for image in examples(60, quarter_turns=True, **ALWAYS)['image']}
    assert turned == {(quarters, 0) for quarters in range(4)}


def test_images_that_are_not_square_keep_their_shape():
    images, textures = random_images(1, 32, 48), random_images(1, 32, 48, seed=1)
    image = images[0].numpy()
    made = examples(60, images, textures, quarter_turns=True, rotation_probability=0.0)['image']
    assert {one.tobytes() for one in made} == {image.tobytes(), np.ascontiguousarray(image[::-1, ::-1]).tobytes()}


def test_switches_leave_all_other_draws_as_they_are():
    plain = examples(40, trace=True, operation_count=0)
    turned = examples(40, trace=True, operation_count=0, quarter_turns=True, flips=True, normal_patch_probability=1e-9)
    for name in ('texture', 'opacity', 'mask'):
        np.testing.assert_array_equal(plain[name], turned[name])


def test_mirrored_corners_are_as_bright_as_the_image():
    rotated = {'rotation_probability': 1.0, 'anomaly_probability': 0.0}
    lowest = IMAGES.numpy().min()
    assert examples(20, **rotated)['image'].min() == 0
    assert examples(20, rotation_fill='mirror', **rotated)['image'].min() >= lowest - 1  # Interpolation rounds.


def test_patches_of_other_normal_images_are_pasted_as_they_are():
    plain = [np.full((32, 32, 3), grey, np.uint8) for grey in (50, 100, 150)]
    images = tf.constant(np.stack(plain))
    made = examples(
        100, images, trace=True, normal_patch_probability=0.5, opacity=(1.0, 1.0), operation_count=2, **ALWAYS
    )
    is_patch = (made['order'] == -1).all(axis=1)
    assert is_patch.mean() == pytest.approx(0.5, abs=0.2)
    greys = made['image'][:, 0, 0, 0]
    for k in np.flatnonzero(is_patch & made['mask'].any(axis=(1, 2, 3))):
        pasted = np.unique(made['augmented'][k][made['mask'][k, ..., 0] > 0])
        assert len(pasted) == 1
        assert pasted[0] in {50, 100, 150} - {greys[k]}
    same = examples(
        100, images, normal_patch_probability=0.5, opacity=(1.0, 1.0), operation_count=2, **ALWAYS
    )  # the short way, which changes only the pixels of the mask
    for name, values in same.items():
        np.testing.assert_array_equal(values, made[name])


def test_real_defects_are_pasted_at_their_place_and_turn_with_the_image():
    # The image says in each pixel where it lies; the defect is the same image, darker, in one corner.
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    image = np.stack([100 + rows, 100 + columns, 200 + 0 * rows], axis=-1)
    mask = np.zeros((32, 32, 1), np.uint8)
    mask[2:9, 20:30] = 255
    defect = np.concatenate([image - 50, mask], axis=-1)[None]
    made = examples(
        60,
        tf.constant(image[None]),
        real_defects=tf.constant(defect),
        real_defect_probability=0.7,
        quarter_turns=True,
        flips=True,
        anomaly_probability=1.0,
        rotation_probability=0.0,
    )
    is_real = made['mask'].sum(axis=(1, 2, 3)) == 70
    assert is_real.mean() == pytest.approx(0.7, abs=0.2)
    for k in np.flatnonzero(is_real):
        expected = np.where(made['mask'][k] > 0, made['image'][k] - 50, made['image'][k])
        np.testing.assert_array_equal(made['augmented'][k], expected)
