"""The report in a browser: slider, filters, order and keyboard, with every image of a test set of real size."""

import time

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from report_samples import HOSTILE, make_results, make_rows

from draem_jax import images, pictures
from draem_jax.evaluation import report, strips

COUNT, SIZE = 581, 128

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='There is no Chromium on this machine.')


def make_large_rows():
    generator = np.random.default_rng(0)
    rows = make_rows(COUNT)
    for row in rows:  # Shares that crowd near 0 and 1, as those of a trained network do.
        row['score'] = float(np.float32(1 / (1 + np.exp(-generator.normal(-4 + 5 * row['label'], 2)))))
    for row, name in zip(rows, HOSTILE, strict=False):
        row['filename'] = name
    rows[3]['defect_type'] = HOSTILE[0]
    rows[5]['has_mask'] = False
    return rows


def draw_pictures(folder, rows):
    generator = np.random.default_rng(0)
    folder.mkdir()
    for index, row in enumerate(rows):
        image = generator.integers(0, 40, (SIZE, SIZE, 3), np.uint8) + np.uint8(100)
        anomaly_map = np.zeros((SIZE, SIZE), np.float32)
        if row['label']:
            cv2.circle(anomaly_map, generator.integers(20, 108, 2).tolist(), 12, 1.0, -1)
        mask = (255 * (anomaly_map > 0.5)).astype(np.uint8) if row['has_mask'] else None
        strip = pictures.strip(image, cv2.blur(image, (9, 9)), cv2.blur(anomaly_map, (5, 5)), mask)
        images.write_jpeg(strips.picture_path(folder, index), strip)


@pytest.fixture(scope='module')
def rows():
    return make_large_rows()


@pytest.fixture(scope='module')
def page(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    draw_pictures(folder / strips.FOLDER, rows)
    log = [{'step': step, 'loss': 1 / step} for step in range(1, 31)]
    report.write_report(
        folder, make_results(rows), rows, training_log=log, last_step=30, picture_shape=(SIZE, SIZE), run_name='<b>run'
    )
    return folder / 'index.html'


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp('profile')) as browser:
        yield browser


@pytest.fixture
def browser(chromium, page):
    chromium.complaints.clear()
    chromium.requests.clear()
    chromium.look(1600, 1000)
    chromium.seconds = chromium.open(page)
    yield chromium
    assert chromium.complaints == []
    assert {address.partition(':')[0] for address in chromium.requests} == {'file'}


def settle(browser):
    """Waits for two frames, until what was asked for is on the screen."""
    browser.run('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))')


def choose(browser, control, value):
    browser.run(
        f"{{ const control = document.getElementById('{control}'); control.value = {value!r};"
        f" control.dispatchEvent(new Event('{'input' if 'slider' in control else 'change'}')); }}"
    )
    settle(browser)


def counts(browser):
    return {
        name: int(browser.run(f"document.getElementById('{name}').textContent")) for name in ('tp', 'fp', 'tn', 'fn')
    }


def shown(browser):
    """The scores of the cards on the page, from the first to the last."""
    return browser.run("[...document.querySelectorAll('.card:not([hidden]) .score')].map(node => +node.textContent)")


def expected_counts(rows, threshold):
    called = np.array([row['score'] for row in rows]) >= threshold
    defective = np.array([row['label'] for row in rows]) == 1
    return {
        'tp': int((called & defective).sum()),
        'fp': int((called & ~defective).sum()),
        'tn': int((~called & ~defective).sum()),
        'fn': int((~called & defective).sum()),
    }


def test_every_image_is_there_and_pictures_come_as_they_are_needed(browser):
    assert browser.run("document.querySelectorAll('.card').length") == COUNT
    assert len(browser.requests) < COUNT  # Pictures are fetched when they come near.


def test_names_are_shown_and_never_run(browser):
    shown_names = set(browser.run("[...document.querySelectorAll('.card .file')].map(node => node.textContent)"))
    assert {name.encode('utf-8', 'replace').decode() for name in HOSTILE} <= shown_names
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('b').length") == 0


def test_the_page_starts_with_the_decisions_of_python(browser, rows):
    results = make_results(rows)
    assert counts(browser) == expected_counts(rows, results['threshold']['image'])
    text = browser.run("document.getElementById('accuracy').textContent")
    assert text == f'{100 * results["at_threshold"]["image_accuracy"]:.1f} %'


@pytest.mark.parametrize('slider', ['slider', 'slider-here'])
def test_the_slider_moves_decisions_counts_and_lines(browser, rows, slider):
    place = "document.querySelector('#histogram .mark').getBoundingClientRect().left"
    dot = "document.querySelector('#roc .marker').getAttribute('cx')"
    before = browser.run(place), browser.run(dot)
    choose(browser, slider, '700')
    threshold = float(browser.run('threshold'))
    assert counts(browser) == expected_counts(rows, threshold)
    assert (browser.run(place), browser.run(dot)) != before
    assert browser.run(f"document.getElementById('{slider}').getAttribute('aria-valuetext')") == browser.run(
        "document.getElementById('threshold').value"
    )
    wrong = browser.run("document.querySelectorAll('.card[data-outcome=fp], .card[data-outcome=fn]').length")
    assert wrong == counts(browser)['fp'] + counts(browser)['fn']
    browser.run("document.querySelector('[data-preset]').click()")
    settle(browser)
    assert counts(browser) == expected_counts(rows, make_results(rows)['threshold']['image'])


@pytest.mark.parametrize('width', [400, 1600])
def test_the_thumb_stands_under_the_line_of_the_histogram(browser, width):
    browser.look(width, 900)
    for value in (0, 333, 1000):
        choose(browser, 'slider', str(value))
        line = browser.run("document.querySelector('#histogram .mark').getBoundingClientRect().left")
        thumb = browser.run(
            "(() => { const box = document.getElementById('slider').getBoundingClientRect();"
            f' return box.left + 10 + (box.width - 20) * {value} / 1000; }})()'
        )
        assert thumb == pytest.approx(line, abs=1.5)


def test_filters_leave_what_they_name(browser, rows):
    decided = counts(browser)
    for outcome, count in (('fp', decided['fp']), ('fn', decided['fn']), ('right', decided['tp'] + decided['tn'])):
        choose(browser, 'outcome', outcome)
        assert len(shown(browser)) == count
        assert browser.run("document.getElementById('shown').textContent") == f'{count} of {COUNT} images'
    choose(browser, 'outcome', 'all')
    browser.run(
        "[...document.getElementById('type').options].find(option => option.dataset.name === 'dent').selected = true;"
        "document.getElementById('type').dispatchEvent(new Event('change'))"
    )
    assert len(shown(browser)) == sum(row['defect_type'] == 'dent' for row in rows)


def test_cards_come_in_the_order_of_their_scores(browser):
    assert shown(browser) == sorted(shown(browser), reverse=True)
    choose(browser, 'sort', 'low')
    assert shown(browser) == sorted(shown(browser))


def test_an_image_opens_and_the_arrow_keys_go_on(browser):
    browser.run("document.querySelector('.card button').click()")
    first = browser.run("document.getElementById('viewer-title').textContent")
    browser.press('ArrowRight', 39)
    assert browser.run("document.getElementById('viewer-title').textContent") != first
    browser.press('ArrowLeft', 37)
    assert browser.run("document.getElementById('viewer-title').textContent") == first
    for _ in range(50):
        if loaded := browser.run(
            "[...document.querySelectorAll('#viewer img')].every(image => image.naturalWidth > 0)"
        ):
            break
        time.sleep(0.05)
    assert loaded
    browser.press('Escape', 27)
    assert not browser.run("document.getElementById('viewer').open")


@pytest.mark.parametrize('width', [400, 1600])
@pytest.mark.parametrize('dark', [False, True])
def test_the_page_is_never_wider_than_the_window_and_readable(browser, width, dark):
    browser.look(width, 900, dark=dark)
    settle(browser)
    assert browser.run('document.documentElement.scrollWidth') <= width
    # The contrast, as WCAG counts it, of the quieter texts on both grounds.
    ratios = browser.run(
        """(() => {
          const style = getComputedStyle(document.documentElement);
          const canvas = document.createElement('canvas').getContext('2d');
          const light = (name) => {
            canvas.fillStyle = style.getPropertyValue(name);
            const [r, g, b] = [1, 3, 5].map(k => parseInt(canvas.fillStyle.slice(k, k + 2), 16) / 255)
              .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          return ['--quiet', '--right', '--defect', '--normal'].flatMap(text => ['--paper', '--surface'].map(ground => {
            const [a, b] = [light(text), light(ground)].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
          }));
        })()"""
    )
    assert min(ratios) >= 4.5
