"""The report: numbers that are right, names that stay text, and a page also where there is little to show."""

import csv
import html.parser
import json
import re
import tomllib
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from draem_jax import run_directory
from draem_jax.evaluation import curve, report, results

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = [
    '"><script>alert(1)</script>.png',
    "'onerror='alert(1)",
    '</script><script>alert(2)</script>',
    '<!--<script>',
    '{{ 7 * 7 }}',
    'größe/检查/الصورة.png',
    'line\nbreak\u2028.png',
    'broken\udcff.png',
    '&amp;',
    '',
]


def make_rows(count=40, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        label = index % 2
        # One digit fewer than usual, so that some scores tie.
        score = round(float(np.clip(generator.normal(0.3 + 0.3 * label, 0.2), 0, 1)), 2)
        kind = ('scratch', 'dent')[index % 4 // 2] if label else 'good'
        rows.append({'filename': f'{index}.png', 'defect_type': kind, 'label': label, 'score': score, 'has_mask': True})
    return rows


def make_results(rows):
    found = results.summarise(*([row[key] for row in rows] for key in ('score', 'label', 'defect_type')))
    about = {
        'step': 30,
        'dataset': {'name': 'folder', 'category': '', 'split': 'test', 'image_size': [32, 32], 'note': None},
        'options': {'aupro_max_fpr': 0.3, 'score_window': 5, 'mask_rule': 'half'},
    }
    return {**about, **found, 'versions': {'numpy': np.__version__}}


def write(folder, rows, **options):
    report.write_report(folder, make_results(rows), rows, **options)
    return (folder / 'index.html').read_text(encoding='utf-8')


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.is_script = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.is_script = tag == 'script'
        if self.is_script:
            self.scripts.append('')

    def handle_endtag(self, tag):
        self.is_script = False

    def handle_data(self, text):
        if self.is_script:
            self.scripts[-1] += text

    def data(self):
        return json.loads(self.scripts[0])


def points(chart):
    """The points of the first line of a chart, both axes from 0 to 1."""
    plot = chart['plot']
    pairs = np.array(re.findall(r'[ML]([\d.]+) ([\d.]+)', chart['lines'][0]['path']), float)
    return (pairs[:, 0] - plot['left']) / plot['width'], 1 - (pairs[:, 1] - plot['top']) / plot['height']


def score_curves(rows):
    scores, labels = (np.array([row[key] for row in rows]) for key in ('score', 'label'))
    return report._score_curves(make_results(rows), scores, labels), scores, labels


def test_the_roc_curve_on_paper_is_that_of_scikit_learn():
    curves, scores, labels = score_curves(make_rows())
    x, y = points(curves['roc'])
    false_positives, true_positives, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(x, false_positives, atol=2e-4)
    np.testing.assert_allclose(y, true_positives, atol=3e-4)
    assert np.trapezoid(y, x) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-3)


def test_the_area_under_the_precision_curve_on_paper_is_average_precision():
    curves, scores, labels = score_curves(make_rows())
    x, y = points(curves['precision_recall'])
    # Steps: upright lines add nothing, the others are level.
    area = np.trapezoid(y, x)
    assert area == pytest.approx(sklearn_metrics.average_precision_score(labels, scores), abs=1e-3)


def test_names_stay_text_whatever_is_in_them(tmp_path):
    rows = make_rows(2 * len(HOSTILE))
    for row, name in zip(rows, HOSTILE * 2, strict=True):
        row['filename'] = name
        row['defect_type'] = name if row['label'] else 'good'
    page = Page(write(tmp_path, rows, run_name=HOSTILE[0]))
    plain = Page(write(tmp_path, make_rows()))

    def scripts(page):
        return [attributes for tag, attributes in page.elements if tag == 'script']

    assert scripts(page) == scripts(plain)
    assert page.scripts[1:] == plain.scripts[1:]
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith('on')]
    assert handlers == []
    shown = [name.encode('utf-8', 'replace').decode() for name in HOSTILE]
    assert [image[0] for image in page.data()['images']] == shown * 2
    types = {attributes['data-name'] for tag, attributes in page.elements if 'data-name' in attributes}
    assert types == {shown[k] for k in range(1, len(HOSTILE), 2)} | {'good'}


def test_the_page_may_run_its_own_script_and_reach_nothing(tmp_path):
    page = Page(write(tmp_path, make_rows()))
    (policy,) = (attributes['content'] for tag, attributes in page.elements if attributes.get('http-equiv'))
    assert "default-src 'none'" in policy
    assert f"script-src '{report._hash(page.scripts[1])}'" in policy
    assert 'unsafe' not in policy
    addresses = [attributes.get(name, '') for _, attributes in page.elements for name in ('src', 'href')]
    assert not [address for address in addresses if '//' in address]


def test_the_slider_starts_at_the_calibrated_threshold_and_else_says_what_it_takes(tmp_path):
    rows = make_rows()
    text = write(tmp_path, rows, calibrated_threshold=0.42)
    assert [preset['name'] for preset in Page(text).data()['presets']] == ['calibrated', 'F1-max of the test set']
    assert Page(text).data()['presets'][0]['value'] == 0.42
    text = write(tmp_path, rows)
    (preset,) = Page(text).data()['presets']
    assert preset['value'] == make_results(rows)['threshold']['image']
    assert 'Starts at: F1-max of the test set' in text


@pytest.mark.parametrize(
    ('last_step', 'sentence'),
    [
        (30, 'the last checkpoint is the result'),
        (40, 'the result is the last checkpoint, of step 40'),
        (None, 'The training had not ended'),
    ],
)
def test_the_page_says_which_checkpoint_is_the_result(tmp_path, last_step, sentence):
    text = write(tmp_path, make_rows(), last_step=last_step)
    assert sentence in text
    assert 'Nothing was selected on the test images.' in text


@pytest.mark.parametrize('label', [0, 1])
def test_images_of_one_class_give_a_page_with_the_reason(tmp_path, label):
    rows = [row for row in make_rows() if row['label'] == label]
    text = write(tmp_path, rows)
    assert f'there are no {"normal" if label else "defective"} images' in text
    (preset,) = Page(text).data()['presets']
    scores = [row['score'] for row in rows]
    assert preset['value'] == (min(scores) if label else max(scores))


def test_scores_that_are_no_numbers_give_a_page_without_them(tmp_path):
    rows = make_rows(6)
    rows[1]['score'], rows[2]['score'] = float('nan'), float('inf')
    text = write(tmp_path, rows)
    assert [image[3] for image in Page(text).data()['images']][1:3] == [None, None]
    assert 'not finite' in text
    assert '2 images have no finite score' in text
    for row in rows:
        row['score'] = float('nan')
    write(tmp_path, rows)


def test_metrics_without_a_value_are_a_dash_with_the_reason(tmp_path):
    text = write(tmp_path, make_rows())  # No maps were given, so nothing is known of pixels.
    assert re.search(r'data-metric="pixel_auroc">-<', text)
    assert 'No pixel AUROC, pixel AP, pixel F1-max, AUPRO: there are no ground-truth masks.' in text


def test_training_curves_pass_over_what_a_crash_cut_short(tmp_path):
    lines = [{'step': step, 'loss': 1 / step, 'learning_rate': 1e-4} for step in range(1, 1001)]
    lines[500]['loss'] = None
    text = ''.join(json.dumps(line) + '\n' for line in lines) + '[]\n7\n{"loss": 1}\n{"step": 30, "lo'
    (tmp_path / 'metrics.jsonl').write_text(text)
    log = run_directory.read_training_log(tmp_path)
    assert log == lines
    losses, rate = report._training_charts(log, 30)
    assert (losses['title'], rate['title']) == ('Training losses', 'Learning rate')
    assert len(re.findall('[ML]', losses['lines'][0]['path'])) <= 400
    assert 'Training losses' in write(tmp_path, make_rows(), training_log=log)
    assert run_directory.read_training_log(tmp_path / 'nowhere') == []


def test_the_curve_over_checkpoints_holds_those_evaluated_in_order(tmp_path):
    for step in (100, 20, 30):
        found = make_results(make_rows(seed=step)) | {'step': step}
        results.write_results(run_directory.evaluation_folder(tmp_path, step), found, [])
    (tmp_path / 'evaluation' / '.x.partial').mkdir()
    folder = curve.write_curve(tmp_path)
    with (folder / 'curve.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['step'] for line in lines] == ['20', '30', '100']
    assert float(lines[2]['image_auroc']) == make_results(make_rows(seed=100))['metrics']['image_auroc']
    assert lines[0]['aupro'] == ''
    picture = xml.etree.ElementTree.parse(folder / 'curve.svg').getroot()
    assert picture.tag == '{http://www.w3.org/2000/svg}svg'


def test_the_wheel_ships_what_the_report_is_made_of():
    patterns = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']['package-data']['draem_jax']
    shipped = {path for pattern in patterns for path in (ROOT / 'draem_jax').glob(pattern)}
    others = {path for path in (ROOT / 'draem_jax').rglob('*') if path.is_file() and '__pycache__' not in path.parts}
    assert others - shipped == set((ROOT / 'draem_jax').glob('*.py'))
