"""What the scaling benchmarks make of their times, and which devices they give to the processes that they start."""

import argparse
import json

import pytest

from benchmarks import devices, scaling


def test_devices_that_do_not_slow_each_other_keep_their_whole_speed():
    one = {'devices': 1, 'batch': 8, 'median': 0.1}
    weak = {'devices': 4, 'batch': 32, 'median': 0.1}
    strong = {'devices': 4, 'batch': 8, 'median': 0.025}
    assert devices.per_device(weak) == pytest.approx(devices.per_device(one))
    assert devices.per_device(strong) == pytest.approx(devices.per_device(one))


def test_efficiency_is_against_the_first_row_that_did_not_fail(monkeypatch, capsys, tmp_path):
    """A step takes 1 s and 0.5 s for each image of a device; four images are too many for one."""

    def in_a_process(count, part, batch, *rest):
        images = int(batch.split('=')[1]) // count
        if images > 3:
            return {'devices': count, 'error': 'out of memory'}
        return {'devices': count, 'seconds': [1 + 0.5 * images]}

    monkeypatch.setattr(devices, 'in_a_process', in_a_process)
    out = tmp_path / 'scaling.json'
    options = {
        'devices': '1,2,4',
        'batch': 1,
        'size': 32,
        'widths': '2,2',
        'dtype': 'float32',
        'steps': 1,
        'repeats': 1,
    }
    devices.scale(argparse.Namespace(**options, out=str(out)), environment=lambda count: count)
    rows = json.loads(out.read_text())['rows']
    assert [(row['scaling'], row['devices'], row['batch']) for row in rows] == [
        *(('weak', count, count) for count in (1, 2, 4)),
        *(('strong', count, 4) for count in (1, 2, 4)),
    ]
    assert [row.get('efficiency') for row in rows] == pytest.approx([1, 1, 1, None, 1, (1 / 1.5) / (2 / 2)])
    assert 'out of memory' in capsys.readouterr().out


def test_a_process_sees_the_first_of_the_gpus_that_we_see(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert devices.first_gpus(2)['CUDA_VISIBLE_DEVICES'] == '0,1'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5,7')
    assert devices.first_gpus(2)['CUDA_VISIBLE_DEVICES'] == '3,5'


def test_virtual_devices_are_of_the_cpu_whatever_else_there_is(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
    assert devices.virtual(2)['JAX_PLATFORMS'] == 'cpu'


def test_all_wait_for_the_process_whose_examples_and_computing_take_longest():
    rows = [
        {'process': 0, 'input': 1.0, 'alone': 30.0, 'step': 40.0},
        {'process': 1, 'input': 15.0, 'alone': 20.0, 'step': 40.0},
        {'process': 2, 'input': 0.0, 'alone': 34.0, 'step': 40.0},
    ]
    assert scaling.slowest(rows)['process'] == 1
