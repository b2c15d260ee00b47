"""The curve over checkpoints: a line for each evaluation in a table, and a picture."""

import csv
import json
import xml.etree.ElementTree

import pytest
from report_samples import make_results, make_rows

from draem_jax import run_directory
from draem_jax.evaluation import curve, results


def test_the_curve_over_checkpoints_holds_those_evaluated_in_order(tmp_path):
    for step in (100, 20, 30):
        record = make_results(make_rows(seed=step)) | {'step': step}
        results.write_results(run_directory.evaluation_folder(tmp_path, step), record, [])
    (tmp_path / 'evaluation' / '.x.partial').mkdir()
    folder = curve.write_curve(tmp_path)
    with (folder / 'curve.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['step'] for line in lines] == ['20', '30', '100']
    assert float(lines[2]['image_auroc']) == make_results(make_rows(seed=100))['metrics']['image_auroc']
    assert lines[0]['aupro'] == ''
    picture = xml.etree.ElementTree.parse(folder / 'curve.svg').getroot()
    assert picture.tag == '{http://www.w3.org/2000/svg}svg'


def changed(**changes):
    return json.dumps(make_results(make_rows()) | {'step': 3} | changes)


def without(name):
    values = make_results(make_rows())['metrics']
    del values[name]
    return values


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('{"step": 3', 'delimiter'),
        ('', 'Expecting value'),
        ('\x00\udcff', 'Expecting value'),
        ('[]', 'does not hold results'),
        ('{"step": 3, "metrics": 5}', 'does not hold results'),
        (changed(step='3'), "found 'step': '3'"),
        (changed(metrics=without('aupro')), 'another version, without aupro'),
        (changed(metrics=without('aupro') | {'aupro': 'abc'}), "found 'aupro': 'abc'"),
        (changed(metrics=without('aupro') | {'aupro': float('nan')}), "found 'aupro': nan"),
        (changed(metrics_full_mask=[1]), 'does not hold results'),
        (changed(options=None), 'does not hold results'),
        ('{"step": 3}', 'another version, without image_auroc, '),
        (changed(metrics_full_mask={'pixel_ap': 0.5}), ''),
    ],
)
def test_results_that_are_damaged_or_of_an_older_version_are_named_and_left_out(tmp_path, capsys, text, reason):
    record = make_results(make_rows()) | {'step': 7}
    results.write_results(run_directory.evaluation_folder(tmp_path, 7), record, [])
    damaged = run_directory.evaluation_folder(tmp_path, 3) / 'results.json'
    damaged.parent.mkdir()
    damaged.write_text(text, errors='surrogateescape')
    with (curve.write_curve(tmp_path) / 'curve.csv').open() as file:
        steps = [line['step'] for line in csv.DictReader(file)]
    said = capsys.readouterr().err
    if reason:
        assert steps == ['7']
        assert f"leaves out '{damaged}'" in said
        assert reason in said
        assert '--step=3' in said
    else:
        assert (steps, said) == (['3', '7'], '')
    assert damaged.read_text(errors='surrogateescape') == text
