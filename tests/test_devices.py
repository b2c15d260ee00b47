"""How work is spread over the four devices of the tests; several processes are simulated: see test_processes."""

import jax
import numpy as np
import pytest

from draem_jax import devices, processes
from draem_jax.errors import UserError


def test_split_gives_each_device_the_next_examples_and_join_takes_it_back():
    batch = {'image': np.arange(24).reshape(8, 3)}
    (split,) = devices.split(batch).values()
    np.testing.assert_array_equal(split[1], [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(devices.join(split), batch['image'])


def test_prefetched_batches_are_on_the_devices_in_their_order():
    batches = [{'image': np.full((8, 2), k, np.uint8)} for k in range(5)]
    prefetched = list(devices.prefetch(iter(batches)))
    assert [int(batch['image'][0, 0, 0]) for batch in prefetched] == [*range(5)]
    for batch in prefetched:
        assert batch['image'].shape == (4, 2, 2)
        assert {(shard.device, shard.data.shape) for shard in batch['image'].addressable_shards} == {
            (device, (1, 2, 2)) for device in jax.devices()
        }


def test_prefetching_is_one_batch_ahead():
    taken = []

    def batches():
        for k in range(5):
            taken.append(k)
            yield {'image': np.zeros((4, 1))}

    prefetched = devices.prefetch(batches())
    next(prefetched)
    assert taken == [0, 1]


def test_a_replicated_state_needs_no_copy_in_a_mapped_update():
    update = devices.parallel_update(lambda state, batch: (state + devices.average(batch.sum()), batch.sum()))
    state = devices.replicate(np.zeros(3, np.float32))
    batch = next(devices.prefetch([np.ones((8, 1), np.float32)]))
    with jax.transfer_guard('disallow'):
        after, _, stops = update(state, batch)
    assert state.is_deleted()  # Donated.
    np.testing.assert_array_equal(after, 2)
    assert not stops


def test_a_prediction_is_that_of_each_image():
    predict = devices.parallel_predict(lambda variables, images: {'sum': images.sum(axis=(1, 2, 3)) + variables})
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.int32)
    outputs = devices.predict_batch(predict, np.int32(1), images)
    np.testing.assert_array_equal(outputs['sum'], images.sum(axis=(1, 2, 3)) + 1)


@pytest.mark.parametrize(('batch_size', 'slices'), [(6, 1), (0, 1), (4, 2), (20, 3)])
def test_a_batch_that_does_not_divide_is_named_with_what_would(batch_size, slices):
    with pytest.raises(UserError, match=rf'training\.batch_size={batch_size} .* multiple of {4 * slices}'):
        devices.check_batch_size(batch_size, 'training.batch_size', slices)
    devices.check_batch_size(24, 'training.batch_size', slices)


def test_several_processes_compute_what_one_does(monkeypatch):
    def update(state, batch):
        mean = devices.average(batch['x'].mean())
        return {'weight': state['weight'] - mean, 'step': state['step'] + 1}, {'loss': mean}

    random = np.random.default_rng(0)
    start = {'weight': random.normal(size=(3, 5)).astype(np.float32), 'step': np.int32(7)}
    batches = [{'x': random.normal(size=(8, 6)).astype(np.float32)} for _ in range(3)]

    def train():
        run, state, losses = devices.parallel_update(update), devices.replicate(start), []
        for batch in devices.prefetch(batches):
            state, metrics, _ = run(state, batch)
            losses.append(metrics['loss'])
        predict = devices.parallel_predict(lambda state, images: {'sum': images.sum((1, 2, 3)) + state['weight'].sum()})
        images = random.integers(0, 256, (8, 4, 4, 3)).astype(np.float32)
        return jax.device_get((state, losses)), devices.predict_batch(predict, state, images)['sum'] - images.sum(
            (1, 2, 3)
        )

    alone = train()
    calls = []
    monkeypatch.setattr(processes, 'process_count', lambda: 2)  # What there is to JAX is one process of four devices.
    monkeypatch.setattr(processes, 'meet', calls.append)
    monkeypatch.setattr(devices, '_own_part', lambda images: images)
    together = train()
    jax.tree.map(np.testing.assert_array_equal, alone, together)
    assert calls == ['compiled'] * 2  # Once for each program, however often it runs.


def test_several_processes_stop_in_the_step_after_the_one_that_asked(monkeypatch):
    monkeypatch.setattr(processes, 'process_count', lambda: 2)
    monkeypatch.setattr(processes, 'meet', lambda name: None)
    run = devices.parallel_update(lambda state, batch: (state, batch.sum()))
    state, stops = devices.replicate(np.zeros(3, np.float32)), []
    for batch, asks in zip(
        devices.prefetch([np.ones((8, 1), np.float32)] * 4), (False, True, False, False), strict=True
    ):
        state, _, stop = run(state, batch, asks)
        stops.append(stop)
    assert stops == [False, False, True, False]
