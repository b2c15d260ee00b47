"""The table of a sweep: categories by metrics, mean and standard deviation over seeds, mean over categories.

A sweep is a folder `<workdir>/<category>/seed_<n>/` with a run in each.
"""

import dataclasses
import json
import pathlib

import numpy as np

from commands import published
from draem_jax import run_directory
from draem_jax.evaluation import results


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    category: str
    seed: int
    workdir: pathlib.Path


def cells(workdir):
    """The runs of a sweep, sorted by category and seed; empty where the folder is none."""
    found = []
    for path in pathlib.Path(workdir).glob('*/seed_*/config.json'):
        number = path.parent.name.removeprefix('seed_')
        if number.isdecimal():
            found.append(Cell(path.parent.parent.name, int(number), path.parent))
    return sorted(found, key=lambda cell: (cell.category, cell.seed))


def collect(evaluated):
    """The rows of the table.

    Args:
        evaluated: list of (Cell, what its results.json holds).

    Returns:
        List of dicts with 'category' ('mean' in the last one), 'seeds', for each of `results.METRICS` its mean over
        seeds and, as '<metric>_std', the standard deviation (n - 1; None of a single seed), both None where a run
        lacks it, and 'published': {metric: value}. The last row holds the means over the categories, and as deviation
        that of the seeds' own means where every category has the same seeds, else None.
    """
    by_category = {}
    for cell, found in evaluated:
        by_category.setdefault(cell.category, {})[cell.seed] = found
    rows = []
    for category, by_seed in by_category.items():
        dataset = next(iter(by_seed.values()))['dataset']
        row = {'category': category, 'seeds': len(by_seed), 'published': published.of(dataset['name'], category)}
        for name in results.METRICS:
            row |= _statistics(name, [found['metrics'][name] for found in by_seed.values()])
        rows.append(row)
    return [*rows, _mean_row(rows, by_category)]


def _mean_row(rows, by_category):
    mean = {'category': 'mean', 'seeds': min(row['seeds'] for row in rows), 'published': {}}
    seeds = {tuple(by_seed) for by_seed in by_category.values()}
    for name in results.METRICS:
        values = [row[name] for row in rows]
        mean[name] = None if None in values else float(np.mean(values))
        mean[f'{name}_std'] = None
        if mean[name] is not None and len(seeds) == 1:
            means = [np.mean([each[seed]['metrics'][name] for each in by_category.values()]) for seed in min(seeds)]
            mean[f'{name}_std'] = _statistics(name, means)[f'{name}_std']
        theirs = [row['published'].get(name) for row in rows]
        if None not in theirs:
            mean['published'][name] = float(np.mean(theirs))
    return mean


def _statistics(name, values):
    if None in values:
        return {name: None, f'{name}_std': None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {name: float(np.mean(values)), f'{name}_std': deviation}


def markdown(rows, note=None):
    """The rows of `collect` as a Markdown table, in percent: mean +- standard deviation, the paper's in brackets.

    Below it stands a sentence on how to read it, and then `note`, if there is one.
    """
    lines = [
        ['category', 'seeds', *results.METRICS],
        *([row['category'], str(row['seeds']), *(_cell(row, name) for name in results.METRICS)] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [' | '.join(map(str.ljust, line, widths)) for line in lines]
    padded.insert(1, ' | '.join('-' * width for width in widths))
    how = 'In percent: mean and standard deviation over seeds; in brackets what the paper prints.'
    return '\n'.join([*(f'| {line} |' for line in padded), '', how, *filter(None, [note]), ''])


def _cell(row, name):
    if row[name] is None:
        return '-'
    text = f'{100 * row[name]:.1f}'
    if row[f'{name}_std'] is not None:
        text += f' ± {100 * row[f"{name}_std"]:.1f}'
    return text + (f' ({100 * row["published"][name]:.1f})' if name in row['published'] else '')


def write(workdir, rows, note=None):
    """Writes table.csv and table.md, with the note, to the sweep's folder."""
    flat = [
        {
            **{name: value for name, value in row.items() if name != 'published'},
            **{f'{name}_published': row['published'].get(name) for name in published.METRICS},
        }
        for row in rows
    ]
    results.write_csv(pathlib.Path(workdir) / 'table.csv', flat)
    run_directory.write_text(pathlib.Path(workdir) / 'table.md', markdown(rows, note))


def read_results(cell, step):
    """What the results.json of a run's checkpoint holds, or None while it has not been evaluated."""
    path = run_directory.evaluation_folder(cell.workdir, step) / 'results.json'
    return json.loads(path.read_text()) if path.is_file() else None


def read_last_results(cell):
    """What the results.json of a run's last checkpoint holds, or None until training and evaluation have ended."""
    step = run_directory.finished_step(cell.workdir)
    return None if step is None else read_results(cell, step)
