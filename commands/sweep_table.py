"""The table of a sweep: categories by metrics, mean and standard deviation over seeds, mean over categories.

In a sweep over several configs, each config has such rows.
"""

import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from commands import published
from commands.cells import Cell
from draem_jax import run_directory, terminal
from draem_jax.evaluation import results

Row = dict[str, Any]
ByCategory = dict[str, dict[int, dict[str, Any]]]  # what results.json holds, by category and seed


def collect(evaluated: Iterable[tuple[Cell, dict[str, Any]]]) -> list[Row]:
    """The rows of the table.

    Args:
        evaluated: cells, each with what its results.json holds.

    Returns:
        A row for each category, and a last one for all; in a sweep over several configs these rows for each config, but
        no last one where a config has a single category. Their keys:

            config: its name; only in a sweep over several.
            category: its name; 'mean' in the last row.
            seeds: how many; in the last row the smallest number.
            <metric>: for each of `results.ALL_METRICS` the mean over seeds; None where a run lacks the metric. In the
                last row the mean over categories.
            <metric>_std: the standard deviation (n - 1) over seeds; None of a single seed. In the last row the
                deviation of the seeds' own means, None unless every category has the same seeds.
            published: {metric: value} of the paper.
    """
    by_config: dict[str, ByCategory] = {}
    for cell, record in evaluated:
        by_config.setdefault(cell.config, {}).setdefault(cell.category, {})[cell.seed] = record
    if not any(by_config):
        return _rows_of('', by_config.get('', {}))
    return [
        {'config': config, **row}
        for config, by_category in by_config.items()
        for row in _rows_of(config, by_category)
        if len(by_category) > 1 or row['category'] != 'mean'
    ]


def _rows_of(config: str, by_category: ByCategory) -> list[Row]:
    rows = []
    for category, by_seed in by_category.items():
        dataset = next(iter(by_seed.values()))['dataset']
        row = {
            'category': category,
            'seeds': len(by_seed),
            'published': published.results_of(dataset['name'], category, config),
        }
        for name in results.ALL_METRICS:
            row |= _statistics(name, [results.all_metrics(record)[name] for record in by_seed.values()])
        rows.append(row)
    mean = _mean_row(rows, by_category)
    mean['published'] = mean['published'] or published.mean_results_of(dataset['name'], by_category, config)
    return [*rows, mean]


def _mean_row(rows: list[Row], by_category: ByCategory) -> Row:
    mean: Row = {'category': 'mean', 'seeds': min(row['seeds'] for row in rows), 'published': {}}
    seeds = {tuple(by_seed) for by_seed in by_category.values()}
    for name in results.ALL_METRICS:
        values = [row[name] for row in rows]
        mean[name] = None if None in values else float(np.mean(values))
        mean[f'{name}_std'] = None
        if mean[name] is not None and len(seeds) == 1:
            by_name = [
                {seed: results.all_metrics(record)[name] for seed, record in each.items()}
                for each in by_category.values()
            ]
            means = [np.mean([each[seed] for each in by_name]) for seed in min(seeds)]
            mean[f'{name}_std'] = _statistics(name, means)[f'{name}_std']
        theirs = [row['published'].get(name) for row in rows]
        if None not in theirs:
            mean['published'][name] = float(np.mean(theirs))
    return mean


def _statistics(name: str, values: list[Any]) -> dict[str, float | None]:
    if None in values:
        return {name: None, f'{name}_std': None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)), f'{name}_std': deviation}


def markdown(rows: list[Row], note: str | None = None) -> str:
    """The rows of `collect` as a Markdown table, in percent: mean ± standard deviation, the paper's in brackets.

    A sentence below it says how to read it; the note, if there is one, follows.
    """
    labels = [name for name in ('config', 'category', 'seeds') if name in rows[0]]
    heads = [*labels, *results.ALL_METRICS]
    cells = [
        [*(str(row[name]) for name in labels), *(_percent(row, name) for name in results.ALL_METRICS)] for row in rows
    ]
    # The empty columns at both ends give every line its outer bars.
    table = [['', *line, ''] for line in (heads, *cells)]
    head, *lines = (line.strip() for line in terminal.align(table, left=len(table[0]), separator=' | '))
    rule = re.sub(r'[^|]', '-', head)
    how = (
        'In percent: mean and standard deviation over seeds; in brackets what the paper prints. full_mask: a pixel is '
        'defective where the mask has its full value, as in the published numbers.'
    )
    return '\n'.join([head, rule, *lines, '', how, *filter(None, [note]), ''])


def _percent(row: Row, name: str) -> str:
    if row[name] is None:
        return '-'
    text = f'{100 * row[name]:.1f}'
    if row[f'{name}_std'] is not None:
        text += f' ± {100 * row[f"{name}_std"]:.1f}'
    return text + (f' ({100 * row["published"][name]:.1f})' if name in row['published'] else '')


def write(workdir: str | os.PathLike[str], rows: list[Row], note: str | None = None, *, tag: str = '') -> pathlib.Path:
    """Writes table.csv and table.md, with the note, to the sweep's folder; returns the path of the latter.

    A tag makes them table_<tag>.csv and .md: it says in which way the results differ from those that the runs' own
    configs ask for.
    """
    flat = [
        {
            **{name: value for name, value in row.items() if name != 'published'},
            **{f'{name}_published': row['published'].get(name) for name in published.METRICS},
        }
        for row in rows
    ]
    path = pathlib.Path(workdir) / f'table{tag and "_"}{tag}.md'
    results.write_csv(path.with_name(f'{path.stem}.csv'), flat)
    run_directory.write_text(path, markdown(rows, note))
    return path
