"""Charts as plain data that templates/charts.svg draws: positions in user units, paths, ticks.

An `Axis` maps values to [0, 1]; `line_chart` and `mirrored_histogram` place lines and bars between two of them. Colours
and fonts are left to the style sheet of the page, so that a chart looks right on light and on dark paper.
"""

import dataclasses
import math

import numpy as np

WIDTH = 480
HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 42
_LOGIT_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_LOGIT_RANGE = (1e-5, 0.999)  # Scores beyond sit on the rim: nobody tells 0.9999 from 1.
_MIN_LOGIT_SPAN = 4.0  # Narrower than this, a linear axis is as clear and easier to read.


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of values on paper.

    Attributes:
        low: value at position 0.
        high: value at position 1.
        kind: 'linear'; 'log'; or 'logit', log(value / (1 - value)), which spreads what crowds near 0 and near 1.
        label: what is shown.
    """

    low: float
    high: float
    kind: str = 'linear'
    label: str = ''

    def positions(self, values):
        """Values [N] as positions [N] in [0, 1]; what lies beyond the axis sits on its rim."""
        low, high = self._transformed([self.low, self.high])
        return np.clip((self._transformed(values) - low) / (high - low), 0, 1)

    def ticks(self, count=6):
        """About `count` round values and their positions: list of {'position', 'text'}."""
        if self.kind == 'linear':
            values = _round_values(self.low, self.high, count)
        elif self.kind == 'log':
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [10.0**power for power in powers]
            if sum(self.low <= value <= self.high for value in values) < 3:
                values = [factor * value for value in values for factor in (1, 2, 5)]
        else:
            values = _LOGIT_TICKS
        slack = 1e-9 * (self.high - self.low)
        values = [value for value in values if self.low - slack <= value <= self.high + slack]
        values = values[:: max(1, math.ceil(len(values) / (1.5 * count)))]
        return [
            {'position': float(position), 'text': f'{value:.6g}'}
            for value, position in zip(values, self.positions(values), strict=True)
        ]

    def _transformed(self, values):
        values = np.asarray(values, np.float64)
        if self.kind == 'linear':
            return values
        if self.kind == 'log':
            return np.log(np.maximum(values, self.low))
        values = np.clip(values, self.low, self.high)
        return np.log(values / (1 - values))


def score_axis(scores, label=''):
    """The axis on which scores are told apart best.

    Args:
        scores: [N]; those that are not finite are not looked at.
        label: of the axis.

    Returns:
        `Axis` over all scores: logit where they are shares that crowd near 0 or 1, as those of DRAEM do, else linear.
    """
    scores = np.asarray(scores, np.float64)
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return Axis(0.0, 1.0, label=label)
    low, high = float(scores.min()), float(scores.max())
    if low >= 0 and high <= 1:
        ends = np.clip([low, high], *_LOGIT_RANGE)
        logits = np.log(ends / (1 - ends))
        if logits[1] - logits[0] >= _MIN_LOGIT_SPAN:
            margin = 0.02 * (logits[1] - logits[0])
            ends = 1 / (1 + np.exp(-(logits + [-margin, margin])))
            return Axis(float(ends[0]), float(ends[1]), 'logit', label)
    # Never without extent, also where all scores are equal.
    margin = 0.02 * (high - low) or max(0.02 * abs(high), 1e-3)
    return Axis(low - margin, high + margin, label=label)


def line_chart(title, lines, x_axis, y_axis, *, description='', mark=None, marker=False):
    """Lines over one pair of axes.

    Args:
        title: shown above.
        lines: list of (name, xs, ys); a y that is not finite leaves a gap; names are shown where there are several.
        x_axis: `Axis`.
        y_axis: `Axis`.
        description: what a reader who sees no picture is told.
        mark: x at which a vertical line stands; None for none.
        marker: whether there is a dot that a script can move.

    Returns:
        dict for the macro `chart` of templates/charts.svg.
    """
    legend = _legend([name for name, _, _ in lines]) if len(lines) > 1 else [None] * len(lines)
    chart = _frame(
        title, x_axis, y_axis, description or title, legend_rows=1 + legend[-1]['row'] if len(lines) > 1 else 1
    )
    for (name, xs, ys), place in zip(lines, legend, strict=True):
        path = _path(chart, x_axis.positions(xs), np.where(np.isfinite(ys), y_axis.positions(ys), np.nan))
        chart['lines'].append({'name': name, 'path': path, 'legend': place})
    if mark is not None:
        chart['mark'] = _x(chart, x_axis.positions([mark])[0])
    chart['marker'] = marker
    return chart


def mirrored_histogram(title, upper, lower, axis, *, bins=48, description='', mark=None):
    """Two histograms on one axis, one growing up and one down, each in shares of its own values.

    Args:
        title: shown above.
        upper: (name, values); those not finite are left out.
        lower: (name, values).
        axis: `Axis` of the values; the bins are equally wide on it.
        bins: their number.
        description: as in `line_chart`.
        mark: value at which a vertical line stands; None for none.

    Returns:
        dict for the macro `chart`.
    """
    chart = _frame(title, axis, Axis(-1, 1), description or title, y_ticks=False)
    plot = chart['plot']
    middle, half = plot['top'] + plot['height'] / 2, plot['height'] / 2
    shares = []
    for _, values in (upper, lower):
        values = np.asarray(values, np.float64)
        positions = axis.positions(values[np.isfinite(values)])
        counts = np.histogram(positions, bins, (0, 1))[0]
        shares.append(counts / max(counts.sum(), 1))
    highest = max(max(share.max() for share in shares), 1e-9)
    width = plot['width'] / bins
    for side, (name, _), share in zip(('upper', 'lower'), (upper, lower), shares, strict=True):
        bars = []
        for index in np.flatnonzero(share):
            length = max(0.96 * half * share[index] / highest, 1)
            top = middle - length if side == 'upper' else middle
            bars.append(
                f'M{plot["left"] + index * width + 0.5:.1f} {top:.1f}h{width - 1:.1f}v{length:.1f}h{1 - width:.1f}z'
            )
        chart['bars'].append({'name': name, 'side': side, 'path': ''.join(bars)})
    chart['middle'] = middle
    chart['mark'] = None if mark is None else _x(chart, axis.positions([mark])[0])
    return chart


def _legend(names):
    """Where each name stands: list of {'left', 'row'}, in as many rows as there is need for."""
    left, row, places = _LEFT, 0, []
    for name in names:
        width = 26 + 9 * len(name)  # About the width of its letters, also where a narrow page enlarges them.
        if left + width > WIDTH and left > _LEFT:
            left, row = _LEFT, row + 1
        places.append({'left': round(left, 1), 'row': row})
        left += width
    return places


def _frame(title, x_axis, y_axis, description, y_ticks=True, legend_rows=1):
    """A chart without content."""
    top = _TOP + 13 * (legend_rows - 1)
    chart = {
        'title': title,
        'description': description,
        'width': WIDTH,
        'height': HEIGHT,
        'plot': {'left': _LEFT, 'top': top, 'width': WIDTH - _LEFT - _RIGHT, 'height': HEIGHT - top - _BOTTOM},
        'x_label': x_axis.label,
        'y_label': y_axis.label,
        'lines': [],
        'bars': [],
        'mark': None,
        'marker': False,
    }
    chart['x_ticks'] = [{'at': _x(chart, tick['position']), 'text': tick['text']} for tick in x_axis.ticks()]
    ticks = y_axis.ticks(5) if y_ticks else []
    chart['y_ticks'] = [{'at': _y(chart, tick['position']), 'text': tick['text']} for tick in ticks]
    return chart


def _x(chart, position):
    return round(float(chart['plot']['left'] + position * chart['plot']['width']), 1)


def _y(chart, position):
    return round(float(chart['plot']['top'] + (1 - position) * chart['plot']['height']), 1)


def _path(chart, xs, ys):
    """A line through positions; broken where a y is NaN; points that fall on one tenth of a unit are drawn once."""
    text, last, is_drawing = [], None, False
    for x, y in zip(xs, ys, strict=True):
        if not np.isfinite(y):
            is_drawing = False
            continue
        point = f'{_x(chart, x):g} {_y(chart, y):g}'
        if not is_drawing or point != last:
            text.append(f'{"L" if is_drawing else "M"}{point}')
        last, is_drawing = point, True
    if len(text) == 1:
        text.append('h0.01')  # A single point, which round line ends make visible.
    return ''.join(text)


def _round_values(low, high, count):
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]
