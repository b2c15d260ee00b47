"""The log of a run: metrics.jsonl and TensorBoard, also after a run was cut short and goes on."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from trees import fill_disk

from draem_jax.errors import UserError
from draem_jax.training.run_log import RunLog, averages


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def events(workdir):
    """All TensorBoard events, read with TensorFlow's own reader."""
    return [
        event
        for path in sorted(workdir.glob('events.out.tfevents.*'))
        for event in tf.compat.v1.train.summary_iterator(str(path))
    ]


def write_log(workdir, steps, first_step=0):
    with RunLog(workdir, first_step) as log:
        for step in steps:
            log.scalars(step, {'loss': np.float32(1 / step)})


def test_every_number_is_a_line_of_json_and_a_point_in_tensorboard(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(5, {'loss': np.float32(0.5), 'learning_rate': 1e-4})
        log.scalars(10, {'loss': 0.25})
    assert lines(tmp_path) == [{'step': 5, 'loss': 0.5, 'learning_rate': 1e-4}, {'step': 10, 'loss': 0.25}]
    points = [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for event in events(tmp_path)
        for value in event.summary.value
    ]
    assert points == [(5, 'loss', 0.5), (5, 'learning_rate', 1e-4), (10, 'loss', 0.25)]


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(1, {'loss': 0.5})
        assert lines(tmp_path) == [{'step': 1, 'loss': 0.5}]


def test_a_picture_arrives_in_tensorboard_as_it_was(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with RunLog(tmp_path) as log:
        log.picture(3, 'examples', picture)
    (event,) = (event for event in events(tmp_path) if event.summary.value)
    assert (event.step, event.summary.value[0].tag) == (3, 'examples')
    np.testing.assert_array_equal(tf.io.decode_png(event.summary.value[0].image.encoded_image_string), picture)


@pytest.mark.parametrize(('first_step', 'kept'), [(0, []), (20, [10, 20]), (25, [10, 20]), (40, [10, 20, 30])])
def test_a_resumed_run_forgets_what_it_makes_again(tmp_path, first_step, kept):
    write_log(tmp_path, (10, 20, 30))
    write_log(tmp_path, (50,), first_step)
    assert [line['step'] for line in lines(tmp_path)] == [*kept, 50]


@pytest.mark.parametrize('rest', ['{"step": 30, "lo', '\n', '[]', '{"loss": 1}'])
def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path, rest):
    write_log(tmp_path, (10, 20))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write(rest)
    write_log(tmp_path, (30,), first_step=20)
    assert [line['step'] for line in lines(tmp_path)] == [10, 20, 30]


@pytest.mark.parametrize('line', [b'\xff\xfe', b'{"step": "5"}', b'{"step": 5, "loss": NaN}', b'9' * 5000])
def test_a_log_with_lines_that_cannot_be_understood_goes_on_without_them(tmp_path, line):
    write_log(tmp_path, (10, 20))
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    (tmp_path / 'metrics.jsonl').write_bytes(line + b'\n' + before)
    write_log(tmp_path, (30,), first_step=20)
    assert (tmp_path / 'metrics.jsonl').read_bytes().startswith(before)
    assert [line['step'] for line in lines(tmp_path)] == [10, 20, 30]


def test_a_log_that_is_a_folder_is_named(tmp_path):
    (tmp_path / 'metrics.jsonl').mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl': Is a directory"):
        write_log(tmp_path, (10,))


@pytest.mark.parametrize('first_step', [0, 20])
def test_tensorboard_is_told_from_which_step_on_a_run_is_made_again(tmp_path, first_step):
    write_log(tmp_path, (10, 20, 30))
    for path in tmp_path.glob('events.*'):
        path.unlink()
    write_log(tmp_path, (40,), first_step)
    starts = [event.step for event in events(tmp_path) if event.session_log.status == tf.compat.v1.SessionLog.START]
    assert starts == [first_step + 1]


def test_on_a_full_disk_the_log_raises_and_waits_for_nothing(small_disk):
    def write_until_full():
        with RunLog(small_disk) as log:
            fill_disk(small_disk)
            for step in range(1, 1000):  # The last block of a file has room for some.
                log.scalars(step, {'loss': 0.5})

    with pytest.raises(OSError, match='No space left'):
        write_until_full()


def test_averages_are_over_the_steps_for_each_metric():
    metrics = [{'loss': jnp.float32(loss), 'l2': jnp.float32(2 * loss)} for loss in (1, 2, 6)]
    assert averages(metrics) == {'loss': 3, 'l2': 6}
