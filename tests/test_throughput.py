"""Speeds, by a clock that the test moves."""

import pytest

from draem_jax.training import throughput


@pytest.fixture
def clock(monkeypatch):
    """Moves the time by some seconds."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, 'monotonic', lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move


def test_speed_is_that_of_the_steps_since_the_restart(clock):
    speed = throughput.Throughput(images_per_step=8, flops_per_image=3e12)
    clock(50)  # Compiling.
    speed.restart()
    assert speed.values() == {}
    for _ in range(4):
        with speed.waiting():
            clock(0.1)
        clock(0.4)
        speed.step()
    values = speed.values()
    assert values['step_seconds'] == pytest.approx(0.5)
    assert values['input_wait_seconds'] == pytest.approx(0.1)
    assert values['images_per_second'] == pytest.approx(16)
    assert values['tflops_per_second'] == pytest.approx(48)
    assert 'mfu' not in values
    speed.restart()
    assert speed.values() == {}


def test_the_share_of_the_peak_is_that_of_all_devices_together(clock):
    speed = throughput.Throughput(images_per_step=8, flops_per_image=3e12, peak_tflops=4 * 50.0)
    clock(0.5)
    speed.step()
    assert speed.values()['mfu'] == pytest.approx(48 / 200)
