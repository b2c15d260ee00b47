"""The metrics of all evaluated checkpoints of a run, over their steps."""

import json
import math
import os
import pathlib
import sys
from typing import Any

import markupsafe

from draem_jax import run_directory
from draem_jax.evaluation import figures, results, templating


def write_curve(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes evaluation/curve.csv and curve.svg: the metrics of every evaluated checkpoint over its step.

    Args:
        workdir: directory of the run; all evaluations in it are taken, but those whose results.json is damaged or of
            an older version, which stderr names.

    Returns:
        The folder that holds the two files.
    """
    folder = run_directory.evaluation_folder(workdir, 0).parent
    lines = []
    for path in sorted(folder.glob('*/results.json')):
        if not path.parent.name.isdecimal():
            continue
        try:
            lines.append(_read_line(path))
        except (OSError, ValueError, RecursionError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            advice = f'Delete it, or make it anew with evaluate.py --step={path.parent.name}.'
            print(f"The curve leaves out '{path}': {reason}. {advice}", file=sys.stderr)
    lines.sort(key=lambda line: line['step'])
    results.write_csv(folder / 'curve.csv', lines, columns=('step', *results.METRICS))
    template = templating.environment().get_template('charts.svg')
    style = markupsafe.Markup(templating.asset('curve.css'))
    draw = template.module.chart  # type: ignore[attr-defined]  # a macro of the template
    svg = draw(figures.metrics_over_steps(lines), standalone=style)
    run_directory.write_text(folder / 'curve.svg', str(svg).strip() + '\n')
    return folder


def _read_line(path: pathlib.Path) -> dict[str, Any]:
    """{'step', and `results.ALL_METRICS`} of a results.json; raises ValueError, OSError where it does not hold them."""
    record = json.loads(path.read_text(encoding='utf-8', errors='surrogateescape'))
    sections = ('metrics', 'metrics_full_mask', 'options')
    if not isinstance(record, dict) or not all(isinstance(record.get(name, {}), dict) for name in sections):
        raise ValueError('it does not hold results')
    step = record.get('step')
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError(f"expected the number of a step, found 'step': {step!r}")
    if missing := [name for name in results.METRICS if name not in record.get('metrics', {})]:
        raise ValueError(f'it is of another version, without {", ".join(missing)}')
    line = results.all_metrics(record)
    for name, value in line.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not is_number:
            raise ValueError(f"expected a number or null, found '{name}': {value!r}")
    return {'step': step, **{name: line[name] for name in results.ALL_METRICS}}
