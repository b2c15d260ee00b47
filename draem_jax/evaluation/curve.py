"""The metrics of all evaluated checkpoints of a run, over their steps."""

import json
import os
import pathlib

import markupsafe

from draem_jax import run_directory
from draem_jax.evaluation import figures, results, templating


def write_curve(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes evaluation/curve.csv and curve.svg: the metrics of every evaluated checkpoint over its step.

    Args:
        workdir: directory of the run; all evaluations in it are taken.

    Returns:
        The folder that holds the two files.
    """
    folder = run_directory.evaluation_folder(workdir, 0).parent
    evaluations = [
        json.loads(path.read_text(encoding='utf-8'))
        for path in folder.glob('*/results.json')
        if path.parent.name.isdigit()
    ]
    evaluations.sort(key=lambda evaluation: evaluation['step'])
    lines = [{'step': evaluation['step'], **evaluation['metrics']} for evaluation in evaluations]
    results.write_csv(folder / 'curve.csv', lines, columns=('step', *results.METRICS))
    template = templating.environment().get_template('charts.svg')
    style = markupsafe.Markup(templating.asset('curve.css'))
    draw = template.module.chart  # type: ignore[attr-defined]  # a macro of the template
    svg = draw(figures.metrics_over_steps(lines), standalone=style)
    run_directory.write_text(folder / 'curve.svg', str(svg).strip() + '\n')
    return folder
