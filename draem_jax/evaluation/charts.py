"""Charts as plain data that templates/charts.svg draws: positions in user units, paths, ticks.

An `Axis` maps values to [0, 1]; `line_chart` and `mirrored_histogram` place lines and bars between two axes. Colours
and fonts are left to the style sheet of the page, so that a chart looks right on light and on dark paper.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Chart = dict[str, Any]  # what the macro `chart` of templates/charts.svg draws

WIDTH = 480
HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 42
_LOGIT_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_LOGIT_RANGE = (1e-5, 0.999)  # Scores beyond it sit on the rim: nobody tells 0.9999 from 1.
_MIN_LOGIT_SPAN = 4.0  # Where logits span less than this, a linear axis is as clear, and easier to read.


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of values on paper.

    Attributes:
        low: value at position 0.
        high: value at position 1.
        kind: 'linear'; 'log'; or 'logit', log(value / (1 - value)), which spreads what crowds near 0 and near 1.
        label: what the values are, written beside the axis.
    """

    low: float
    high: float
    kind: str = 'linear'
    label: str = ''

    def positions(self, values: ArrayLike) -> np.ndarray:
        """Values [N] as positions [N] in [0, 1]; those beyond the axis sit on its rim."""
        low, high = self._transformed([self.low, self.high])
        return np.clip((self._transformed(values) - low) / (high - low), 0, 1)

    def ticks(self, count: int = 6) -> list[dict[str, Any]]:
        """About `count` round values and their positions, each {'position', 'text'}."""
        values: Sequence[float]
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

    def _transformed(self, values: ArrayLike) -> np.ndarray:
        numbers = np.asarray(values, np.float64)
        if self.kind == 'linear':
            return numbers
        if self.kind == 'log':
            return np.log(np.maximum(numbers, self.low))
        shares = np.clip(numbers, self.low, self.high)
        return np.log(shares / (1 - shares))


def score_axis(scores: ArrayLike, label: str = '') -> Axis:
    """The axis on which scores are told apart best.

    Args:
        scores: [N]; those that are not finite are passed over.
        label: of the axis.

    Returns:
        An axis over all scores: logit where they are shares that crowd near 0 or 1, as those of DRAEM do, else linear.
    """
    numbers = np.asarray(scores, np.float64)
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return Axis(0.0, 1.0, label=label)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        ends = np.clip([low, high], *_LOGIT_RANGE)
        logits = np.log(ends / (1 - ends))
        if logits[1] - logits[0] >= _MIN_LOGIT_SPAN:
            margin = 0.02 * (logits[1] - logits[0])
            ends = 1 / (1 + np.exp(-(logits + [-margin, margin])))
            return Axis(float(ends[0]), float(ends[1]), 'logit', label)
    # The axis has an extent also where all scores are equal.
    margin = 0.02 * (high - low) or max(0.02 * abs(high), 1e-3)
    return Axis(low - margin, high + margin, label=label)


def line_chart(
    title: str,
    lines: Sequence[tuple[str, ArrayLike, ArrayLike]],
    x_axis: Axis,
    y_axis: Axis,
    *,
    description: str = '',
    mark: float | None = None,
    marker: bool = False,
) -> Chart:
    """Lines over one pair of axes.

    Args:
        title: shown above.
        lines: (name, xs, ys) of each; a y that is not finite leaves a gap; names are shown where there are several.
        x_axis: from left to right.
        y_axis: from bottom to top.
        description: what a reader who sees no picture is told.
        mark: x at which a vertical line stands; None for no such line.
        marker: whether there is a dot that a script can move.
    """
    legend = _legend([name for name, _, _ in lines]) if len(lines) > 1 else []
    legend_rows = 1 + legend[-1]['row'] if legend else 1
    chart = _frame(title, x_axis, y_axis, description or title, legend_rows=legend_rows)
    for index, (name, xs, ys) in enumerate(lines):
        path = _path(chart, x_axis.positions(xs), np.where(np.isfinite(ys), y_axis.positions(ys), np.nan))
        chart['lines'].append({'name': name, 'path': path, 'legend': legend[index] if legend else None})
    if mark is not None:
        chart['mark'] = _x(chart, x_axis.positions([mark])[0])
    chart['marker'] = marker
    return chart


def mirrored_histogram(
    title: str,
    upper: tuple[str, ArrayLike],
    lower: tuple[str, ArrayLike],
    axis: Axis,
    *,
    bins: int = 48,
    description: str = '',
    mark: float | None = None,
) -> Chart:
    """Two histograms on one axis, one growing up and one down, each in shares of its own values.

    Args:
        title: shown above.
        upper: (name, values); values that are not finite are left out.
        lower: likewise.
        axis: of the values; the bins are equally wide on it.
        bins: their number.
        description: as in `line_chart`.
        mark: value at which a vertical line stands; None for no such line.
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


def _legend(names: Sequence[str]) -> list[dict[str, Any]]:
    """Where each name stands, {'left', 'row'}, in as many rows as are needed."""
    left, row, places = _LEFT, 0, []
    for name in names:
        width = 26 + 9 * len(name)  # Wide enough for its letters, even where a narrow page enlarges them.
        if left + width > WIDTH and left > _LEFT:
            left, row = _LEFT, row + 1
        places.append({'left': round(left, 1), 'row': row})
        left += width
    return places


def _frame(
    title: str, x_axis: Axis, y_axis: Axis, description: str, *, y_ticks: bool = True, legend_rows: int = 1
) -> Chart:
    """A chart without lines and bars."""
    top = _TOP + 13 * (legend_rows - 1)
    chart: Chart = {
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


def _x(chart: Chart, position: float) -> float:
    return round(float(chart['plot']['left'] + position * chart['plot']['width']), 1)


def _y(chart: Chart, position: float) -> float:
    return round(float(chart['plot']['top'] + (1 - position) * chart['plot']['height']), 1)


def _path(chart: Chart, xs: np.ndarray, ys: np.ndarray) -> str:
    """A line through positions, broken where a y is NaN; of points on the same tenth of a unit one is drawn."""
    pieces: list[list[str]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if not np.isfinite(y):
            pieces.append([])
            continue
        point = f'{_x(chart, x):g} {_y(chart, y):g}'
        if point not in pieces[-1][-1:]:
            pieces[-1].append(point)
    # A line so short is a point, which round line ends make visible.
    return ''.join(f'M{"L".join(piece)}{"h0.01" if len(piece) == 1 else ""}' for piece in pieces if piece)


def _round_values(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]
