"""The local launcher: which devices each run gets. What it does with processes is in test_sweep."""

import pytest

from commands.local_launcher import find_devices, slots
from draem_jax.errors import UserError


@pytest.mark.parametrize(
    ('devices_per_run', 'visible', 'expected'),
    [
        (1, None, ['0', '1', '2', '3', '4']),
        (2, None, ['0,1', '2,3']),
        (2, '7, 3,GPU-0aa,GPU-1bb,MIG-2', ['7,3', 'GPU-0aa,GPU-1bb']),
        (3, '', ['0,1,2']),
    ],
)
def test_gpus_are_shared_out_by_the_names_they_have(devices_per_run, visible, expected):
    environment = {} if visible is None else {'CUDA_VISIBLE_DEVICES': visible}
    shared_out = slots(devices_per_run, lambda: ('gpu', 5), environment)
    assert shared_out == [{'CUDA_VISIBLE_DEVICES': ids} for ids in expected]


def test_all_devices_make_one_slot():
    assert slots(0, lambda: pytest.fail('Nobody needs to know.')) == [{}]
    assert slots(4, lambda: ('tpu', 4)) == [{}]


def test_more_devices_than_there_are_and_parts_of_a_tpu_are_refused():
    with pytest.raises(UserError, match=r'--devices_per_run=5: this machine has 4 \(gpu\)'):
        slots(5, lambda: ('gpu', 4))
    with pytest.raises(UserError, match=r'4 tpu devices .* not shared out'):
        slots(1, lambda: ('tpu', 4))


def test_virtual_devices_of_a_cpu_are_counted_and_shared_out(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=5')
    first, second = slots(2)
    assert first == second
    monkeypatch.setenv('XLA_FLAGS', first['XLA_FLAGS'])
    assert find_devices() == ('cpu', 2)
