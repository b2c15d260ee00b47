"""The tables and curves of `benchmarks.recipes`, from its JSON files alone."""

import pathlib
import statistics

import markupsafe

from draem_jax import run_directory
from draem_jax.evaluation import charts, templating

HELD_OUT = ('image_auroc', 'pixel_ap')
TEST = ('image_auroc', 'pixel_auroc', 'pixel_ap')
_TITLES = {'image_auroc': 'image AUROC', 'pixel_auroc': 'pixel AUROC', 'pixel_ap': 'pixel AP'}
_TENTHS = (2, 4, 6, 8, 10)
_LINES = 7  # that a chart tells apart
_NOTE = """\
Mean ± standard deviation (n - 1) over the seeds. The base of a recipe is the recipe without
its last name or its own widths, which stand after @; of a single name it is `official`. `helps on`: on how many sets
the mean held-out image AUROC or pixel AP is above that of the base by more than the spread, the larger standard
deviation of the two; it takes two seeds that both have. Core-seconds are processor time of all threads from the first
step on, without starting and compiling. Held out: drawn defects on normal images that the training did not see. Test:
the data set's own, looked at once, after the choices were made.
"""


def read(out):
    """All results below a folder, as a list of dicts."""
    paths = sorted(pathlib.Path(out).glob('*/*.json'))
    return [run_directory.read_json(path, 'Delete it, and the cell is measured again.') for path in paths]


def write(out):
    """Writes table.md and the curves, curves_<set>_<steps>.svg, to a folder of results; returns the text of the former.

    Where there are no results, nothing is written.
    """
    out, records = pathlib.Path(out), read(out)
    if not records:
        return f"No results in '{out}' yet."
    text = markdown(records)
    run_directory.write_text(out / 'table.md', text)
    style = markupsafe.Markup(templating.asset('curve.css'))
    draw = templating.environment().get_template('charts.svg').module.chart
    for steps, name in sorted({(record['steps'], record['set']) for record in records}):
        grid = Grid([record for record in records if record['steps'] == steps])
        svg = draw(chart(grid, name), standalone=style)
        run_directory.write_text(out / f'curves_{name}_{steps}.svg', str(svg).strip() + '\n')
    return text


def markdown(records):
    """The tables of all budgets as Markdown."""
    parts = ['# Recipes\n', _NOTE]
    for steps in sorted({record['steps'] for record in records}):
        grid = Grid([record for record in records if record['steps'] == steps])
        parts += [f'## {steps} steps of 8 examples\n', f'Held out\n\n{held_out_table(grid)}']
        if any(record['test'] for record in grid.records):
            parts.append(f'Test\n\n{test_table(grid)}')
        parts.append('Quality over core-seconds: held-out image AUROC / core-seconds\n')
        parts += [f'{name}\n\n{curve_table(grid, name)}' for name in grid.sets]
    return '\n'.join(parts)


class Grid:
    """The results of one budget.

    Attributes:
        records: list of dicts.
        recipes: `official` first, then each after its base.
        sets: names of the data sets.
    """

    def __init__(self, records):
        self.records = records
        self.recipes = sorted({one['recipe'] for one in records}, key=_order)
        self.sets = sorted({one['set'] for one in records})

    def values(self, recipe, name, read):
        """{seed: read(record)} of a recipe on a data set; a `read` of None is left out."""
        cells = [one for one in self.records if one['recipe'] == recipe and one['set'] == name]
        return {one['seed']: value for one in cells if (value := read(one)) is not None}

    def means(self, recipe, read):
        """{seed: mean over all data sets} of a recipe, for the seeds that it has on all of them."""
        by_set = [self.values(recipe, name, read) for name in self.sets]
        seeds = set.intersection(*map(set, by_set))
        return {seed: statistics.mean(values[seed] for values in by_set) for seed in sorted(seeds)}


def base(recipe):
    """The recipe that a recipe is compared with; None for `official`."""
    switches, has_widths, _ = recipe.partition('@')
    if has_widths:
        return switches
    return None if recipe == 'official' else switches.rpartition('+')[0] or 'official'


def exceeds(ours, theirs):
    """Whether a mean is above another by more than the spread, over the seeds that both have.

    Args:
        ours, theirs: {seed: value}.

    Returns:
        True or False; None with less than two such seeds.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    pair = [[values[seed] for seed in seeds] for values in (ours, theirs)]
    spread = max(map(statistics.stdev, pair))
    return statistics.mean(pair[0]) - statistics.mean(pair[1]) > spread


def helps_on(grid, recipe):
    """(on how many data sets a recipe helps against its base, on how many that can be said)."""
    if base(recipe) is None:
        return 0, 0
    verdicts = []
    for name in grid.sets:
        found = [
            exceeds(grid.values(recipe, name, _held_out(metric)), grid.values(base(recipe), name, _held_out(metric)))
            for metric in HELD_OUT
        ]
        verdicts += [any(found)] if None not in found else []
    return sum(verdicts), len(verdicts)


def held_out_table(grid):
    """One row for each recipe: what it finds on held-out images, and what it cost."""

    def cells(recipe, values):
        of_metrics = [_spread(values(recipe, _held_out(metric))) for metric in HELD_OUT]
        return [*of_metrics, _mean(values(recipe, _held_out('core_seconds')))]

    titles = [*(_TITLES[metric] for metric in HELD_OUT), 'core-s']
    rows = []
    for recipe in grid.recipes:
        helped, known = helps_on(grid, recipe)
        seeds = {one['seed'] for one in grid.records if one['recipe'] == recipe}
        rows.append([recipe, str(len(seeds)), f'{helped} of {known}' if known else '-'])
    return _table(grid, ['recipe', 'seeds', 'helps on'], rows, titles, cells)


def test_table(grid):
    """One row for each recipe: what it finds on the test images."""

    def cells(recipe, values):
        return [_spread(values(recipe, _test(metric))) for metric in TEST]

    return _table(grid, ['recipe'], [[recipe] for recipe in grid.recipes], [_TITLES[metric] for metric in TEST], cells)


def curve_table(grid, name):
    """One row for each recipe: image AUROC and core-seconds at each fifth of the budget."""
    rows = []
    for recipe in grid.recipes:
        cells = []
        for tenth in _TENTHS:
            auroc, seconds = (
                _mean(grid.values(recipe, name, _at_tenth(tenth, key)), digits)
                for key, digits in (('image_auroc', 3), ('core_seconds', 0))
            )
            cells.append('-' if auroc == '-' else f'{auroc} / {seconds}')
        rows.append([recipe, *cells])
    return _markdown_table(['recipe', *(f'{10 * tenth} %' for tenth in _TENTHS)], rows)


def chart(grid, name):
    """Held-out image AUROC over core-seconds on a data set, of `official` and the recipes that end highest."""

    def last(recipe):
        return statistics.mean(grid.values(recipe, name, _held_out('image_auroc')).values())

    here = [recipe for recipe in grid.recipes if grid.values(recipe, name, _held_out('image_auroc'))]
    best = sorted(here, key=lambda recipe: (recipe == 'official', last(recipe)), reverse=True)[:_LINES]
    lines = []
    for recipe in best:
        seconds, aurocs = (
            [_average(grid.values(recipe, name, _at_tenth(tenth, key))) for tenth in _TENTHS]
            for key in ('core_seconds', 'image_auroc')
        )
        points = [point for point in zip(seconds, aurocs, strict=True) if None not in point]
        lines += [(recipe, *zip(*points, strict=True))] if points else []
    highest = max((max(seconds) for _, seconds, _ in lines), default=1)
    lowest = min((min(aurocs) for _, _, aurocs in lines), default=0)
    return charts.line_chart(
        f'{name}: drawn defects on held-out images',
        lines,
        charts.Axis(0, max(highest, 1), label='core-seconds of training'),
        charts.Axis(min(0.05 * int(20 * lowest), 0.95), 1, label='image AUROC'),
        description=f'Image AUROC of {", ".join(best)} on {name} over core-seconds',
    )


def _order(recipe):
    switches, _, widths = recipe.partition('@')
    return switches != 'official', switches.split('+'), widths


def _held_out(metric):
    return lambda record: record['held_out'][metric]


def _test(metric):
    return lambda record: record['test'] and record['test'][metric]


def _at_tenth(tenth, key):
    """Reads the point of the curve that is nearest to so many tenths of the budget."""

    def read(record):
        points = {round(10 * point['step'] / record['updates']): point for point in record['curve']}
        return points[tenth][key] if tenth in points else None

    return read


def _table(grid, first_titles, first_cells, titles, cells):
    """A table whose rows continue with the same cells for each data set and for the mean over them."""
    header = list(first_titles)
    for name in (*grid.sets, 'mean'):
        header += [f'{name} {title}' for title in titles]
    rows = []
    for recipe, start in zip(grid.recipes, first_cells, strict=True):
        row = list(start)
        for name in grid.sets:
            row += cells(recipe, lambda recipe, read, name=name: grid.values(recipe, name, read))
        rows.append(row + cells(recipe, grid.means))
    return _markdown_table(header, rows)


def _markdown_table(header, rows):
    lines = [header, ['---'] * len(header), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _spread(values):
    """'mean ± standard deviation' of {seed: value}; the mean alone of one value."""
    if len(values) < 2:
        return _mean(values, 3)
    return f'{_mean(values, 3)} ± {statistics.stdev(values.values()):.3f}'


def _mean(values, digits=0):
    average = _average(values)
    return '-' if average is None else f'{average:.{digits}f}'


def _average(values):
    return statistics.mean(values.values()) if values else None
