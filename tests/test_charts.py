"""Charts: values in their places, ticks where their text says, and gaps where there is no number."""

import re

import numpy as np
import pytest

from draem_jax.evaluation import charts
from draem_jax.evaluation.charts import Axis


@pytest.mark.parametrize(
    ('axis', 'values', 'positions'),
    [
        (Axis(10, 20), [5, 10, 15, 20, 30], [0, 0, 0.5, 1, 1]),
        (Axis(0.01, 100, 'log'), [0, 0.01, 1, 10], [0, 0, 0.5, 0.75]),
        (Axis(0.1, 0.9, 'logit'), [0, 0.1, 0.5, 0.9, 1], [0, 0, 0.5, 1, 1]),
    ],
)
def test_axis_maps_its_range_to_0_and_1(axis, values, positions):
    np.testing.assert_allclose(axis.positions(values), positions, atol=1e-12)


@pytest.mark.parametrize(
    'axis', [Axis(0, 1), Axis(0, 3000), Axis(-2.5, 0.3), Axis(0.004, 0.9, 'log'), Axis(1e-5, 0.999, 'logit')]
)
def test_ticks_are_where_their_text_says(axis):
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 10
    expected = axis.positions([float(tick['text']) for tick in ticks])
    np.testing.assert_allclose([tick['position'] for tick in ticks], expected, atol=1e-6)


@pytest.mark.parametrize(
    ('scores', 'kind'),
    [
        ([1e-4, 0.5, 0.999], 'logit'),
        ([0.0, 1.0], 'logit'),
        ([0.3, 0.4, 0.6], 'linear'),  # Not crowded: a linear axis reads better.
        ([-3.0, 0.5], 'linear'),
        ([0.5, 12.0], 'linear'),
        ([0.25, 0.25], 'linear'),
        ([0.0], 'linear'),
        ([np.nan, 0.2, np.inf], 'linear'),
        ([np.nan], 'linear'),
        ([], 'linear'),
    ],
)
def test_score_axis_has_room_for_every_score(scores, kind):
    axis = charts.score_axis(scores)
    assert axis.kind == kind
    assert axis.low < axis.high
    finite = np.array([score for score in scores if np.isfinite(score)])
    positions = axis.positions(finite)
    assert ((positions > 0) & (positions < 1)).all() or kind == 'logit'
    assert (np.diff(positions[np.argsort(finite)]) >= 0).all()


def test_a_line_breaks_where_there_is_no_number_and_starts_again():
    chart = charts.line_chart('', [('', [0, 1, 2, 3], [0, np.nan, 1, 1])], Axis(0, 3), Axis(0, 1))
    (line,) = chart['lines']
    assert re.findall('[ML]', line['path']) == ['M', 'M', 'L']
    assert 'nan' not in line['path']


@pytest.mark.parametrize(
    ('ys', 'pieces', 'dots'),
    [
        ([1, np.nan, np.nan, np.nan, np.nan], 1, 1),
        ([np.nan, 1, np.nan, 0, np.nan], 2, 2),
        ([0, 1, np.nan, 0.5, np.nan], 2, 1),
        ([0, np.nan, 0.5, np.nan, 1], 3, 3),
        ([0, 1, np.nan, 0.5, 1], 2, 0),
        ([np.nan] * 5, 0, 0),
    ],
)
def test_a_point_alone_between_gaps_is_a_dot(ys, pieces, dots):
    (line,) = charts.line_chart('', [('', range(5), ys)], Axis(0, 4), Axis(0, 1))['lines']
    drawn = re.findall('M[^M]*', line['path'])
    assert len(drawn) == pieces
    # A path of one place without length shows nothing.
    assert sum(bool(re.fullmatch(r'M[\d.]+ [\d.]+h0\.01', piece)) for piece in drawn) == dots
    assert all('L' in piece or piece.endswith('h0.01') for piece in drawn)


def test_points_too_close_to_tell_apart_are_one():
    xs = np.linspace(2, 2.0001, 9)
    (line,) = charts.line_chart('', [('', xs, np.ones(9))], Axis(0, 4), Axis(0, 1))['lines']
    assert re.fullmatch(r'M[\d.]+ [\d.]+h0\.01', line['path'])


def test_each_half_of_a_histogram_shows_shares_of_its_own_values():
    values = np.random.default_rng(0).random(50)
    chart = charts.mirrored_histogram('', ('a', [0.5] * 4), ('b', [*values, np.nan]), Axis(0, 1), bins=10)
    one, many = (np.array(re.findall(r'v([\d.]+)h', bars['path']), float) for bars in chart['bars'])
    assert len(one) == 1
    expected = np.histogram(values, 10, (0, 1))[0] / 50
    np.testing.assert_allclose(many / one, expected[expected > 0], atol=0.01)


def test_every_name_of_a_legend_has_room_above_the_plot():
    names = ['image AUROC', 'image AP', 'image F1-max', 'pixel AUROC', 'pixel AP', 'pixel F1-max', 'AUPRO']
    chart = charts.line_chart('', [(name, [0, 1], [0, 1]) for name in names], Axis(0, 1), Axis(0, 1))
    places = [line['legend'] for line in chart['lines']]
    assert len({(place['left'], place['row']) for place in places}) == len(names)
    assert all(place['left'] + 9 * len(name) < chart['width'] for name, place in zip(names, places, strict=True))
    assert 25.5 + 13 * places[-1]['row'] < chart['plot']['top']
