import numpy as np
import pytest
import tensorflow as tf

from data.synthesis.perlin import fade, perlin_noise


def random_angles(size=33, seed=0):
    return np.random.default_rng(seed).uniform(0, 2 * np.pi, (size, size)).astype(np.float32)


def reference_noise(angles, cells_y, cells_x, height, width):
    """The textbook form in float64: four corner gradients per pixel, interpolated by the quintic."""
    angles = angles.astype(np.float64)
    y = (np.arange(height) * cells_y / height)[:, None] * np.ones(width)
    x = (np.arange(width) * cells_x / width)[None, :] * np.ones((height, 1))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)

    def corner(down, right):
        angle = angles[top + down, left + right]
        return np.cos(angle) * (x - left - right) + np.sin(angle) * (y - top - down)

    def smooth(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    s, t = smooth(y - top), smooth(x - left)
    above = (1 - t) * corner(0, 0) + t * corner(0, 1)
    below = (1 - t) * corner(1, 0) + t * corner(1, 1)
    return np.sqrt(2) * ((1 - s) * above + s * below)


@pytest.mark.parametrize(
    ('cells_y', 'cells_x', 'height', 'width'),
    [(1, 1, 64, 64), (4, 4, 64, 64), (32, 2, 256, 256), (1, 32, 128, 96), (8, 16, 100, 67), (3, 5, 33, 50)],
)
def test_noise_equals_the_textbook_form(cells_y, cells_x, height, width):
    angles = random_angles()
    noise = perlin_noise(angles, cells_y, cells_x, height, width).numpy()
    np.testing.assert_allclose(noise, reference_noise(angles, cells_y, cells_x, height, width), atol=1e-5)


def test_noise_vanishes_on_its_lattice_and_only_there():
    noise = perlin_noise(random_angles(), 8, 4, 64, 64).numpy()
    np.testing.assert_allclose(noise[::8, ::16], 0.0, atol=1e-6)
    assert np.mean(np.abs(noise) > 1e-3) > 0.95


@pytest.mark.parametrize('cells', [8, 32])
def test_cells_of_one_pixel_are_empty_and_cells_of_two_are_not(cells):
    empty, smallest = (perlin_noise(random_angles(), cells, cells, size, size) for size in (cells, 2 * cells))
    assert not np.any(empty)
    # Of four pixels one lies on the lattice.
    assert np.mean(np.abs(smallest) > 1e-3) == pytest.approx(3 / 4, abs=0.02)


def test_parallel_gradients_reach_one_and_nothing_exceeds_it():
    # All gradients point at the middle of the one cell: the extreme of the noise, sqrt(2) * sqrt(1/2).
    angles = np.pi * np.array([[1 / 4, 3 / 4], [-1 / 4, -3 / 4]], np.float32)
    noise = perlin_noise(angles, 1, 1, 64, 64).numpy()
    assert noise[32, 32] == pytest.approx(1.0, abs=1e-6)
    assert np.abs(noise).max() <= 1.0 + 1e-6


def test_gradients_beyond_the_cells_do_not_matter():
    angles = random_angles()
    other = angles.copy()
    other[5:], other[:, 3:] = 1.0, 2.0
    np.testing.assert_array_equal(perlin_noise(angles, 4, 2, 48, 48), perlin_noise(other, 4, 2, 48, 48))


def test_one_graph_serves_every_scale_and_size():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([33, 33])] + [tf.TensorSpec([], tf.int32)] * 4)
    def noise(angles, cells_y, cells_x, height, width):
        traces.append(1)
        return perlin_noise(angles, cells_y, cells_x, height, width)

    angles = random_angles()
    for arguments in [(1, 32, 64, 96), (16, 4, 50, 41)]:
        np.testing.assert_allclose(noise(angles, *arguments), reference_noise(angles, *arguments), atol=1e-5)
    assert len(traces) == 1


def test_fade_is_a_symmetric_step_with_flat_ends():
    t = tf.linspace(tf.constant(0.0, tf.float64), 1.0, 11)
    with tf.GradientTape() as tape:
        tape.watch(t)
        step = fade(t)
    np.testing.assert_allclose(step + step[::-1], 1.0, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(step, t).numpy()[[0, -1]], 0.0, atol=1e-12)
    assert step[0] == 0.0
