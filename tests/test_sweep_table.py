"""The table of a sweep: means and deviations, and the paper's numbers beside them."""

import csv
import pathlib
import statistics

import pytest

from commands import published, sweep_table
from commands.cells import Cell
from draem_jax.evaluation import results

AUROC = {('bottle', 0): 0.90, ('bottle', 1): 0.94, ('screw', 0): 0.80, ('screw', 1): 0.70}


def evaluated(auroc=AUROC, dataset='mvtec_ad', config=''):
    return [
        (
            Cell(category, seed, pathlib.Path(), config),
            {
                'dataset': {'name': dataset},
                'metrics': values | {'image_auroc': value},
                'metrics_full_mask': {'pixel_auroc': 0.6, 'pixel_ap': 0.4},
            },
        )
        for (category, seed), value in auroc.items()
        for values in [dict.fromkeys(results.METRICS, 0.5)]
    ]


def test_means_and_deviations_are_those_of_the_statistics_module():
    bottle, screw, mean = sweep_table.collect(evaluated())
    assert bottle['image_auroc'] == pytest.approx(0.92)
    assert screw['image_auroc_std'] == pytest.approx(statistics.stdev([0.8, 0.7]))
    assert mean['image_auroc'] == pytest.approx(0.835)
    assert mean['image_auroc_std'] == pytest.approx(statistics.stdev([0.85, 0.82]))


def test_one_seed_has_no_deviation_and_a_missing_metric_no_mean():
    *_, mean = sweep_table.collect(evaluated({('bottle', 0): 0.9, ('screw', 0): None}))
    assert mean['image_auroc'] is None
    assert mean['pixel_ap_std'] is None
    assert '| -' in sweep_table.markdown([mean])


def test_the_published_numbers_average_to_the_published_means():
    rows = [published.results_of('mvtec_ad', category) for category in published._MVTEC_AD]
    assert len(rows) == 15
    for name, expected in zip(published.METRICS, (98.0, 97.3, 68.4), strict=True):
        assert 100 * statistics.mean(row[name] for row in rows) == pytest.approx(expected, abs=0.05)


def test_only_data_sets_of_the_paper_have_its_numbers_beside_them():
    bottle, _, mean = sweep_table.collect(evaluated())
    # Pixels are compared by the rule for masks that the published numbers were made with.
    assert bottle['published'] == {'image_auroc': 0.992, 'pixel_auroc_full_mask': 0.991, 'pixel_ap_full_mask': 0.865}
    assert (bottle['pixel_auroc'], bottle['pixel_auroc_full_mask'], bottle['pixel_ap_full_mask']) == (0.5, 0.6, 0.4)
    assert mean['published']['image_auroc'] == pytest.approx((0.992 + 0.939) / 2)
    assert not any(row['published'] for row in sweep_table.collect(evaluated(dataset='folder')))


def test_each_of_several_configs_has_its_rows_and_a_mean_of_its_own(tmp_path):
    rows = sweep_table.collect(evaluated(config='plus') + evaluated({('screw', 0): 0.5}, config='light'))
    labels = [(row['config'], row['category'], row['seeds']) for row in rows]
    # One category is its own mean.
    assert labels == [('plus', 'bottle', 2), ('plus', 'screw', 2), ('plus', 'mean', 2), ('light', 'screw', 1)]
    assert rows[2]['image_auroc'] == pytest.approx(0.835)
    assert rows[2]['image_auroc_std'] == pytest.approx(statistics.stdev([0.85, 0.82]))
    sweep_table.write(tmp_path, rows)
    table = (tmp_path / 'table.md').read_text().splitlines()
    assert table[0].startswith('| config | category | seeds | image_auroc |')
    assert table[5].startswith('| light  | screw    | 1     | 50.0        |')
    with (tmp_path / 'table.csv').open() as file:
        line = list(csv.DictReader(file))[2]
    assert (line['config'], line['category'], line['image_auroc_published']) == ('plus', 'mean', '')


def test_cells_of_one_config_beside_those_of_several_have_no_name(tmp_path):
    rows = sweep_table.collect(evaluated({('screw', 0): 0.5}) + evaluated({('screw', 0): 0.5}, config='light'))
    assert [(row['config'], row['category']) for row in rows] == [('', 'screw'), ('light', 'screw')]


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('ablations_full', 98.0),
        ('ablations_full_bottle_paper', 98.0),
        ('ablations_colours_screw', 96.2),
        ('ablations_discriminative_only_official', 93.9),
        ('ablations_few_textures', None),
        ('ablations_colours_dark', None),
        ('mine_full', None),
    ],
)
def test_a_row_of_table_3_has_its_mean_beside_all_categories(config, expected):
    all_categories = {(category, 0): 0.9 for category in published._MVTEC_AD}
    *categories, mean = sweep_table.collect(evaluated(all_categories, config=config))
    found = mean['published'].get('image_auroc')
    assert found == (None if expected is None else pytest.approx(expected / 100, abs=5e-4))
    # Of single categories the paper has only the full method.
    assert all(bool(row['published']) == (expected == 98.0) for row in categories)
    *_, of_two = sweep_table.collect(evaluated(config=config))
    assert bool(of_two['published']) == (expected == 98.0)
    *_, elsewhere = sweep_table.collect(evaluated(all_categories, dataset='folder', config=config))
    assert not elsewhere['published']


def test_the_full_row_of_table_3_is_the_mean_of_the_categories():
    means = [statistics.mean(column) for column in zip(*published._MVTEC_AD.values(), strict=True)]
    assert published.TABLE_3['full'] == pytest.approx(means, abs=0.05)


def test_the_table_is_written_for_people_and_for_programs(tmp_path):
    rows = sweep_table.collect(evaluated())
    sweep_table.write(tmp_path, rows)
    with (tmp_path / 'table.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert [line['category'] for line in lines] == ['bottle', 'screw', 'mean']
    assert float(lines[0]['image_auroc']) == pytest.approx(0.92)
    assert float(lines[0]['image_auroc_published']) == 0.992
    assert '92.0 ± 2.8 (99.2)' in (tmp_path / 'table.md').read_text()


def test_the_markdown_table_lines_up():
    lines = sweep_table.markdown(sweep_table.collect(evaluated()), note='One is missing.').splitlines()
    table = lines[:5]
    assert table[0].startswith('| category | seeds | image_auroc       | image_ap   |')
    assert table[1].startswith('|----------|-------|-------------------|------------|')
    assert table[2].startswith('| bottle   | 2     | 92.0 ± 2.8 (99.2) | 50.0 ± 0.0 |')
    bars = {tuple(column for column, character in enumerate(line) if character == '|') for line in table}
    assert len(bars) == 1
    assert [line.count('|') for line in lines[5:]] == [0, 0, 0]
    assert lines[-1] == 'One is missing.'
