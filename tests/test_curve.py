"""The curve over checkpoints: a line for each evaluation in a table, and a picture."""

import csv
import xml.etree.ElementTree

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
