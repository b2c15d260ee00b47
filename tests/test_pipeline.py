"""Training batches: what they hold, and that an example depends on its seed and position alone."""

import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from data import pipeline
from data.banks import FileImages
from draem_jax.errors import UserError

_RNG = np.random.default_rng(0)
IMAGES, TEXTURES = (_RNG.integers(0, 256, (count, 32, 64, 3), dtype=np.uint8) for count in (3, 5))


def examples(count, *, batch_size=4, seed=1, **options):
    """`count` examples from consecutive batches, stacked."""
    batches = pipeline.training_batches(IMAGES, TEXTURES, seed=seed, batch_size=batch_size, **options)
    return stack(itertools.islice(batches, count // batch_size))


def stack(batches):
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


@pytest.fixture(scope='module')
def run():
    """The first 32 examples, in batches of 4."""
    return examples(32)


def test_shapes_and_types(run):
    shapes = {name: (value.shape, value.dtype) for name, value in run.items()}
    pixels = ((32, 32, 64, 3), np.uint8)
    assert shapes == {'image': pixels, 'augmented': pixels, 'mask': ((32, 32, 64, 1), np.uint8)}


def test_masks_say_where_the_augmented_image_may_differ(run):
    mask = run['mask'][..., 0]
    assert set(np.unique(mask)) == {0, 1}
    differs = (run['augmented'] != run['image']).any(axis=-1)
    assert not differs[mask == 0].any()
    assert differs[mask == 1].mean() > 0.9


def test_every_batch_can_be_reached_without_those_before_it(run):
    for first_batch in (1, 7):
        batch = examples(4, first_batch=first_batch)
        assert_equal(batch, {name: value[4 * first_batch :][:4] for name, value in run.items()})


@pytest.mark.parametrize('batch_size', [1, 32])
def test_an_example_does_not_depend_on_the_size_of_its_batch(run, batch_size):
    assert_equal(examples(32, batch_size=batch_size), run)


@pytest.mark.parametrize('threads', [1, 8])
def test_an_example_does_not_depend_on_the_number_of_threads(run, threads, monkeypatch):
    monkeypatch.setattr(pipeline, 'core_count', lambda: threads)
    assert_equal(examples(32), run)


def test_another_seed_gives_other_examples(run):
    other = examples(32, seed=2)
    assert all((other[name] != run[name]).any() for name in run)


def test_every_normal_image_is_used(run):
    unrotated = examples(32, rotation_probability=0.0)['image']
    used = {int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in unrotated}
    assert used == {0, 1, 2}


def test_options_reach_the_synthesis():
    clean = examples(8, anomaly_probability=0.0)
    assert not clean['mask'].any()
    np.testing.assert_array_equal(clean['augmented'], clean['image'])
    anomalous = examples(8, anomaly_probability=1.0, mask_source='rectangle')
    assert anomalous['mask'].any(axis=(1, 2, 3)).all()


def test_examples_of_the_first_positions_are_the_first_of_the_run(run):
    first = pipeline.examples(IMAGES, TEXTURES, seed=1, positions=range(10))
    assert_equal(first, {name: value[:10] for name, value in run.items()})


def test_positions_far_into_a_long_run_are_reached_at_once(run):
    far = examples(4, first_batch=10**9)
    assert (far['image'] != run['image'][:4]).any()


def test_examples_of_any_positions_in_any_order(run):
    positions = [17, 3, 3, 30]
    chosen = pipeline.examples(IMAGES, TEXTURES, seed=1, positions=positions)
    assert_equal(chosen, {name: value[positions] for name, value in run.items()})


@pytest.mark.parametrize('process_count', [1, 2, 4])
def test_the_parts_of_all_processes_make_the_whole_batch(run, process_count):
    options = {'seed': 1, 'batch_size': 8, 'first_batch': 1, 'process_count': process_count}
    parts = [
        next(pipeline.training_batches(IMAGES, TEXTURES, process_index=index, **options))
        for index in range(process_count)
    ]
    assert_equal(stack(parts), {name: value[8:16] for name, value in run.items()})


def test_a_batch_that_does_not_divide_over_the_processes_is_refused():
    with pytest.raises(ValueError, match='8 does not divide over 3'):
        next(pipeline.training_batches(IMAGES, TEXTURES, seed=1, batch_size=8, process_count=3))


def test_another_process_makes_the_same_bytes(run, tmp_path):
    path = tmp_path / 'examples.npz'
    np.savez(tmp_path / 'banks.npz', images=IMAGES, textures=TEXTURES)
    code = (
        'import sys, numpy as np\n'
        'from data import pipeline\n'
        'banks = np.load(sys.argv[1])\n'
        'made = pipeline.examples(banks["images"], banks["textures"], seed=1, positions=range(32))\n'
        'np.savez(sys.argv[2], **made)'
    )
    root = pathlib.Path(pipeline.__file__).parent.parent
    subprocess.run([sys.executable, '-c', code, tmp_path / 'banks.npz', path], cwd=root, check=True)
    assert_equal(dict(np.load(path)), run)


def test_a_file_that_cannot_be_decoded_ends_the_training_by_its_own_error():
    def decode(file):
        raise UserError(f"Cannot read image '{file}'.")

    bank = FileImages(['broken.png'], decode, (32, 64))
    with pytest.raises(UserError, match=r'broken\.png'):
        pipeline.examples(bank, TEXTURES, seed=1, positions=range(4))


def test_a_program_that_leaves_an_endless_iterator_open_ends():
    code = (
        'import numpy as np\n'
        'from data import pipeline\n'
        'images = np.zeros((3, 256, 256, 3), np.uint8)\n'
        'batches = pipeline.training_batches(images, images, seed=1, batch_size=8)\n'
        'next(batches)'
    )
    root = pathlib.Path(pipeline.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, check=True, capture_output=True, text=True, timeout=60
    )
    assert 'Traceback' not in done.stderr
