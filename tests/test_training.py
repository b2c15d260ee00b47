"""One update of a tiny network on four devices: its losses, its equality with one device, its schedule."""

import cv2
import jax
import numpy as np
import pytest
from reference_losses import reference_focal, reference_l2, reference_ssim
from tiny_run import OneBlock

from draem_jax import checkpoints, devices, errors
from draem_jax.model import networks
from draem_jax.training import divergence
from draem_jax.training.optimizer import make_optimizer, make_schedule
from draem_jax.training.state import init_state, restore_newest_state, save_state
from draem_jax.training.update import make_update

SIZE = (32, 32)
OPTIMIZER = {'learning_rate': 1e-4, 'decay_factor': 0.2, 'decay_at': ()}


def make_batch(seed, count=4):
    """Smooth images that differ from each other: on white noise the deep layers see nothing but rounding."""
    random = np.random.default_rng(seed)

    def smooth(channels):
        coarse = random.integers(0, 256, (count, 4, 4, channels), np.uint8)
        return np.stack([cv2.resize(image, SIZE).reshape(*SIZE, channels) for image in coarse])

    return {'image': smooth(3), 'augmented': smooth(3), 'mask': (smooth(1) > 160).astype(np.uint8)}


@pytest.fixture(scope='module')
def model():
    return networks.Draem(2, 2, axis_name=devices.AXIS)  # As in test_end_to_end: compiled once for both.


@pytest.fixture(scope='module')
def optimizer():
    return make_optimizer(make_schedule(10, **OPTIMIZER))


@pytest.fixture
def state(model, optimizer):
    return init_state(networks.init_variables(model, SIZE, seed=0), optimizer)


@pytest.fixture(scope='module')
def step(model, optimizer):
    """(state, batch) -> (state, metrics) on four devices, compiled once."""
    update = devices.parallel_update(make_update(model, optimizer))
    return lambda state, batch: jax.device_get(update(devices.replicate(state), devices.split(batch))[:2])


def test_losses_of_a_step_equal_numpy_on_the_whole_batch(model, state, step):
    batch = make_batch(0)
    _, metrics = step(state, batch)
    # One device sees the whole batch, which four devices see together.
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    augmented = (batch['augmented'] / 255).astype(np.float32)
    one_device = model.clone(axis_name=None)
    apply = jax.jit(lambda variables, image: one_device.apply(variables, image, train=True, mutable=['batch_stats']))
    (reconstruction, logits), _ = apply(variables, augmented)
    image = batch['image'] / 255
    expected = {
        'l2': reference_l2(np.asarray(reconstruction), image),
        'ssim': reference_ssim(np.asarray(reconstruction), image),
        'focal': reference_focal(np.asarray(logits), batch['mask']),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    np.testing.assert_allclose(metrics['loss'], sum(expected.values()), rtol=1e-5)


def test_one_two_and_four_devices_train_alike_for_twenty_steps(optimizer):
    # In whole networks rounding grows from step to step (benchmarks/devices.py); in this one it does not.
    state = init_state(networks.init_variables(OneBlock(devices.AXIS), SIZE, seed=0), optimizer)

    def values(count):
        update = jax.pmap(
            make_update(OneBlock(devices.AXIS), optimizer),
            axis_name=devices.AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=jax.devices()[:count],
        )
        after, metrics_by_step = state, []
        for k in range(20):
            batch = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), make_batch(k))
            after, metrics = update(after, batch)
            metrics_by_step.append([float(metrics[name]) for name in ('loss', 'l2', 'ssim', 'focal', 'gradient_norm')])
        return metrics_by_step

    expected = values(1)
    for count in (2, 4):
        np.testing.assert_allclose(values(count), expected, rtol=1e-4)


def test_slices_give_the_mean_of_their_gradients(optimizer):
    examples = [make_batch(0, 8), make_batch(1, 8)]
    # Each device gets four examples; the first two are the first slice.
    batch = jax.tree.map(
        lambda *leaves: np.concatenate([leaf.reshape(4, 2, *SIZE, -1) for leaf in leaves], 1), *examples
    )
    state = init_state(networks.init_variables(OneBlock(devices.AXIS), SIZE, seed=0), optimizer)

    def step(batch, slices):
        update = devices.parallel_update(make_update(OneBlock(devices.AXIS), optimizer, slices=slices))
        return jax.device_get(update(devices.replicate(state), batch)[:2])

    (sliced, metrics), (one, of_one), (other, of_other) = (
        step(batch, 2),
        step(devices.split(examples[0]), 1),
        step(devices.split(examples[1]), 1),
    )
    for name in ('loss', 'l2', 'ssim', 'focal'):
        np.testing.assert_allclose(metrics[name], (of_one[name] + of_other[name]) / 2, rtol=1e-5)
    first_moments = [each.opt_state[0].mu for each in (sliced, one, other)]
    for mean, a, b in zip(*map(jax.tree.leaves, first_moments), strict=True):
        np.testing.assert_allclose(mean, (a + b) / 2, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    # The running statistics move with each slice: what the first slice added fades by a tenth.
    statistics = [each.batch_stats for each in (state, sliced, one, other)]
    for start, end, a, b in zip(*map(jax.tree.leaves, statistics), strict=True):
        np.testing.assert_allclose(end, b + 0.9 * (a - start), rtol=1e-4, atol=1e-6)


def test_training_on_one_batch_lowers_every_part_of_the_loss(state, step):
    batch = make_batch(0)
    batch['image'] = np.full_like(batch['image'], 128)  # Something that a linear output can learn in a few steps.
    batch['mask'] = np.zeros_like(batch['mask'])
    _, first = step(state, batch)
    for _ in range(60):
        state, last = step(state, batch)
    assert int(state.step) == 60
    for name in ('l2', 'ssim', 'focal'):
        assert last[name] < first[name]


def test_a_step_repeats_bit_for_bit(state, step):
    runs = []
    for _ in range(2):
        again = state
        for k in range(3):
            again, _ = step(again, make_batch(k))
        runs.append(again)
    for a, b in zip(jax.tree.leaves(runs[0]), jax.tree.leaves(runs[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_learning_rate_falls_at_the_given_fractions():
    schedule = make_schedule(1000, learning_rate=1e-4, decay_factor=0.2, decay_at=(0.8, 0.9))
    rates = [float(schedule(step)) for step in (0, 799, 800, 899, 900, 999)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 2e-5, 2e-5, 4e-6, 4e-6], rtol=1e-5)


def test_learning_rate_rises_linearly_during_warmup():
    schedule = make_schedule(100, learning_rate=1.0, decay_factor=0.2, decay_at=(), warmup_steps=4)
    np.testing.assert_allclose([float(schedule(step)) for step in range(6)], [0.25, 0.5, 0.75, 1, 1, 1])


def assert_equal(a, b):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def with_bias(state, value):
    """The state with another value in one number of the parameters."""
    params = jax.tree.map(np.array, state.params)
    leaf = jax.tree.leaves(params)[0]
    leaf.flat[0] = value
    return state.replace(params=params)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_from_the_first_step_that_is_not_finite_nothing_changes(state, step, value):
    good, _ = step(state, make_batch(0))
    bad = with_bias(good, value)
    after, metrics = step(bad, make_batch(1))
    assert not np.isfinite(metrics['loss'])
    assert int(after.diverged_at) == 2  # The second step of this run; it was not made.
    assert_equal(after.replace(diverged_at=bad.diverged_at), bad)
    # The steps after it are not made either, even if they would be finite.
    mended = good.replace(diverged_at=after.diverged_at)
    later, metrics = step(mended, make_batch(2))
    assert np.isfinite(metrics['loss'])
    assert_equal(later, mended)


def test_a_gradient_that_is_not_finite_counts_as_much_as_a_loss(state):
    after = state.replace(step=state.step + 1, params=jax.tree.map(lambda leaf: leaf + 1, state.params))
    kept = divergence.guard(state, after, np.float32(0.5), np.float32(np.inf))
    assert int(kept.diverged_at) == 1
    assert_equal(kept.params, state.params)
    assert_equal(divergence.guard(state, after, np.float32(0.5), np.float32(3.0)), after)


def test_the_host_names_the_first_step_that_diverged(state):
    schedule = make_schedule(100, **{**OPTIMIZER, 'decay_at': (0.8, 0.9)})
    recent = [{'loss': np.float32(loss), 'l2': np.float32(2 * loss)} for loss in (1, np.nan, 5, 7)]
    divergence.check(84, state, recent, schedule)
    with pytest.raises(errors.Diverged) as caught:  # Steps 81 to 84: at step 80 the rate fell to a fifth.
        divergence.check(84, state.replace(diverged_at=np.int32(82)), recent, schedule)
    assert caught.value.exit_code == 3
    for part in ('step 82,', 'rate 2e-05', 'loss nan', 'l2 nan'):
        assert part in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_cosine_falls_from_the_rate_to_nothing():
    schedule = make_schedule(100, learning_rate=2.0, decay_factor=0.2, decay_at=(0.5,), schedule='cosine')
    steps = np.array([0, 25, 50, 99, 100])
    np.testing.assert_allclose(
        [float(schedule(step)) for step in steps], 1 + np.cos(np.pi * steps / 100), rtol=1e-4, atol=1e-6
    )


def test_moving_averages_follow_their_formula_and_are_what_inference_sees(optimizer):
    variables = networks.init_variables(OneBlock(devices.AXIS), SIZE, seed=0)
    state = init_state(variables, optimizer, keeps_averages=True)
    update = devices.parallel_update(make_update(OneBlock(devices.AXIS), optimizer, ema_decay=0.5))
    expected = jax.tree.map(np.array, variables)
    for k in range(6):
        state, _, _ = update(devices.replicate(state), devices.split(make_batch(k)))
        state = jax.device_get(state)
        decay = min(0.5, (1 + k) / (10 + k))
        newest = {'params': state.params, 'batch_stats': state.batch_stats}
        expected = jax.tree.map(lambda mean, new, d=decay: d * mean + (1 - d) * new, expected, newest)
    for ours, theirs in zip(jax.tree.leaves(state.variables), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_keeps_averages_and_what_they_are_averages_of(optimizer, tmp_path):
    variables = networks.init_variables(OneBlock(), SIZE, seed=0)
    template = init_state(variables, optimizer, keeps_averages=True)
    state = template.replace(step=np.int32(3), averages=jax.tree.map(lambda leaf: leaf + 1, variables))
    with checkpoints.open_checkpoints(tmp_path) as manager:
        save_state(manager, state)
    with checkpoints.open_checkpoints(tmp_path) as manager:
        restored = restore_newest_state(manager, template)
    assert_equal(restored.params, variables['params'])
    assert_equal(restored.averages, state.averages)
    assert_equal(checkpoints.restore_variables(tmp_path, variables)[1], state.averages)
