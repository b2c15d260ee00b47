"""The report: numbers that are right, names that stay text, and a page also where there is little to show."""

import html.parser
import json
import re

import pytest
from report_samples import HOSTILE, make_results, make_rows

from draem_jax.evaluation import report


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


def test_the_page_shows_the_training_where_there_is_a_log(tmp_path):
    log = [{'step': step, 'loss': 1 / step} for step in range(1, 31)]
    assert 'Training losses' in write(tmp_path, make_rows(), training_log=log)
    assert 'Training losses' not in write(tmp_path, make_rows())


def test_the_page_tells_the_full_rule_and_masks_that_lost_their_pixels(tmp_path):
    rows = make_rows()
    record = make_results(rows) | {'metrics_full_mask': {'pixel_auroc': 0.875, 'pixel_ap': 0.5}}
    record['masks'] = {'count': 20, 'empty': 3, 'empty_full_mask': 5}
    report.write_report(tmp_path, record, rows)
    text = html.unescape((tmp_path / 'index.html').read_text(encoding='utf-8'))
    assert "Pixel AUROC 87.5 and pixel AP 50.0 by the authors' mask rule" in text
    assert '3 (5 by the rule full) of 20 masks of defective images have no defective pixel' in text


def test_metrics_without_a_value_are_a_dash_with_the_reason(tmp_path):
    text = write(tmp_path, make_rows())  # No maps were given, so nothing is known of pixels.
    assert re.search(r'data-metric="pixel_auroc">-<', text)
    assert 'No pixel AUROC, pixel AP, pixel F1-max, AUPRO: there are no ground-truth masks.' in text
