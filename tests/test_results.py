"""Results: each metric over the right images, reasons for what is missing, files that read back."""

import csv
import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from draem_jax.evaluation import metrics, results, summary
from draem_jax.evaluation.evaluate import defective_pixels
from draem_jax.evaluation.pixel_ranking import PixelRanking


def make_test_set(seed=0):
    """Eight images of 16 px: three normal, three dents, two scratches; the mask of one scratch is unknown."""
    generator = np.random.default_rng(seed)
    types = ['good', 'good', 'good', 'dent', 'dent', 'scratch', 'scratch', 'dent']
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    masks = np.zeros((8, 16, 16), np.uint8)
    masks[3, 2:5, 2:5] = masks[4, 8:12, 1:3] = masks[5, 3:9, 7] = masks[6] = masks[7, :4, :4] = 1
    masks[7, 10, 10] = 1
    maps = np.round(generator.random(masks.shape) * 0.7 + 0.3 * masks, 2).astype(np.float32)
    has_mask = np.arange(8) != 6
    return generator.random(8) + 0.2 * labels, labels, types, maps, masks, has_mask


def summarise(scores, labels, types, maps, masks, has_mask):
    """The results of a test set; few pixels are held in memory at once."""
    with PixelRanking(block_size=300) as pixels:
        for index in np.flatnonzero(has_mask):
            pixels.add(maps[index], masks[index], group=summary.pixel_group(labels[index], types[index]))
        return summary.summarise(scores, labels, types, pixels=pixels)


def test_metrics_equal_scikit_learn_over_the_images_they_take():
    scores, labels, types, maps, masks, has_mask = make_test_set()
    record = summarise(scores, labels, types, maps, masks, has_mask)
    assert set(record['metrics']) == set(results.METRICS)
    for name, chosen in {'all': labels >= 0, 'dent': np.isin(types, ['good', 'dent'])}.items():
        row = record['metrics'] if name == 'all' else record['per_defect_type'][name]
        y, x = masks[chosen & has_mask].ravel(), maps[chosen & has_mask].ravel()
        assert row['image_auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(labels[chosen], scores[chosen]))
        assert row['image_ap'] == pytest.approx(sklearn_metrics.average_precision_score(labels[chosen], scores[chosen]))
        assert row['pixel_auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(y, x), abs=1e-12)
        assert row['pixel_ap'] == pytest.approx(sklearn_metrics.average_precision_score(y, x), abs=1e-12)
        expected = metrics.aupro(maps[chosen & has_mask], masks[chosen & has_mask])
        assert row['aupro'] == pytest.approx(expected, abs=1e-12)
    assert record['counts'] == {'normal': 3, 'defective': 5, 'by_type': {'dent': 3, 'scratch': 2}}
    assert record['notes'] == {}


def test_thresholds_reach_their_f1_and_their_rates():
    scores, labels, types, maps, masks, has_mask = make_test_set()
    record = summarise(scores, labels, types, maps, masks, has_mask)
    decision = scores >= record['threshold']['image']
    assert sklearn_metrics.f1_score(labels, decision) == pytest.approx(record['metrics']['image_f1_max'])
    assert record['at_threshold']['image_tpr'] == pytest.approx(decision[labels == 1].mean())
    assert record['at_threshold']['image_tnr'] == pytest.approx(1 - decision[labels == 0].mean())
    assert record['at_threshold']['image_accuracy'] == pytest.approx((decision == labels).mean())
    pixels = maps[has_mask] >= record['threshold']['pixel']
    expected = sklearn_metrics.f1_score(masks[has_mask].ravel(), pixels.ravel())
    assert record['metrics']['pixel_f1_max'] == pytest.approx(expected)


def test_the_full_rule_beside_another_gives_what_it_gives_alone():
    scores, labels, types, maps, masks, has_mask = make_test_set()
    values = np.where(masks, np.random.default_rng(1).choice([128, 255], masks.shape), 60)
    values[5] = values[5].clip(max=200)  # a mask that loses all its pixels by the full rule

    def evaluate(rule):
        with PixelRanking(block_size=300) as pixels:
            for index in np.flatnonzero(has_mask):
                group = summary.pixel_group(labels[index], types[index])
                mask, core = (defective_pixels(values[index], which) for which in (rule, 'full'))
                pixels.add(maps[index], mask, group, core)
            return summary.summarise(scores, labels, types, pixels=pixels) | {'options': {'mask_rule': rule}}

    half, full = evaluate('half'), evaluate('full')
    assert 0 < (values == 255).sum() < (values > 127.5).sum()
    alone = summarise(scores, labels, types, maps, masks, has_mask)
    assert half['metrics'] == pytest.approx(alone['metrics'], abs=1e-12)
    for name in summary.FULL_MASK_METRICS:
        assert half['metrics_full_mask'][name] == pytest.approx(full['metrics'][name], abs=1e-12)
        assert full['metrics_full_mask'][name] == pytest.approx(full['metrics'][name], abs=1e-12)
        assert half['metrics'][name] != pytest.approx(full['metrics'][name], abs=1e-3)
    assert half['masks'] == {'count': 4, 'empty': 0, 'empty_full_mask': 1}
    assert full['masks'] == {'count': 4, 'empty': 1, 'empty_full_mask': 1}
    shown = [f'{100 * full["metrics"][name]:.1f}' for name in summary.FULL_MASK_METRICS]
    assert f"pixel AUROC {shown[0]} and pixel AP {shown[1]} by the authors' mask rule" in results.table(half)
    assert '0 (1 by the rule full) of 4 masks of defective images have no defective pixel' in results.table(half)
    assert "authors' mask rule" not in results.table(full)
    assert '1 of 4 masks of defective images have no defective pixel' in results.table(full)


def test_results_of_an_older_version_know_the_full_rule_only_where_it_was_chosen():
    values = dict.fromkeys(results.METRICS, 0.5)
    older = {'metrics': values, 'options': {'mask_rule': 'half'}}
    assert results.all_metrics(older) == values | {'pixel_auroc_full_mask': None, 'pixel_ap_full_mask': None}
    older['options']['mask_rule'] = 'full'
    assert results.all_metrics(older) == values | {'pixel_auroc_full_mask': 0.5, 'pixel_ap_full_mask': 0.5}


def test_a_defect_type_named_like_the_normals_stays_apart():
    maps = np.array([[[0.1, 0.2]], [[0.3, 0.9]]])
    record = summarise([0.1, 0.9], [0, 1], ['good', 'good'], maps, maps > 0.5, [True, True])
    assert record['counts'] == {'normal': 1, 'defective': 1, 'by_type': {'good': 1}}
    assert record['per_defect_type']['good']['image_auroc'] == record['metrics']['pixel_auroc'] == 1.0


@pytest.mark.parametrize(
    ('change', 'missing', 'reason'),
    [
        ({'labels': np.zeros(8)}, results.METRICS[:3], 'no defective images'),
        ({'labels': np.ones(8)}, results.METRICS[:3], 'no normal images'),
        ({'scores': np.full(8, np.nan)}, results.METRICS[:3], 'not finite'),
        ({'maps': np.full((8, 16, 16), np.nan)}, results.METRICS[3:], 'not finite'),
        ({'has_mask': np.zeros(8)}, results.METRICS[3:], 'no ground-truth masks'),
        ({'has_mask': np.arange(8) < 3}, results.METRICS[3:], 'no ground-truth masks'),
        ({'masks': np.zeros((8, 16, 16))}, results.METRICS[3:], 'no defective pixels'),
        ({'masks': np.ones((8, 16, 16))}, results.METRICS[3:], 'no normal pixels'),
    ],
)
def test_a_metric_without_a_value_is_none_with_its_reason(change, missing, reason, tmp_path):
    names = ('scores', 'labels', 'types', 'maps', 'masks', 'has_mask')
    arguments = dict(zip(names, make_test_set(), strict=True)) | change
    record = summarise(*arguments.values())
    for name in results.METRICS:
        assert (record['metrics'][name] is None) == (name in missing)
        assert (reason in record['notes'].get(name, '')) == (name in missing)
    results.write_results(tmp_path, record, [])
    assert reason in results.table(record)


def test_without_maps_every_pixel_metric_says_why():
    scores, labels, types, *_ = make_test_set()
    record = summary.summarise(scores, labels, types)
    assert [name for name in results.METRICS if record['metrics'][name] is None] == list(results.METRICS[3:])
    reasons = {record['notes'][f'{prefix}pixel_auroc'] for prefix in ('', 'dent/', 'scratch/')}
    assert reasons == {'there are no ground-truth masks'}


def test_equal_scores_are_a_coin_toss_not_a_gap():
    _, labels, types, maps, masks, has_mask = make_test_set()
    record = summarise(np.ones(8), labels, types, np.ones_like(maps), masks, has_mask)
    assert record['metrics']['image_auroc'] == record['metrics']['pixel_auroc'] == 0.5


def test_files_read_back_as_they_were(tmp_path):
    record = summarise(*make_test_set()) | {'step': np.int64(7), 'dataset': 'tiles'}
    awkward = [
        'a,b.png',
        'line\nbreak.png',
        '"quoted".png',
        'größe.png',
        'broken\udcff.png',
        '=1+1.png',
        'plain.png',
        '',
    ]
    rows = [
        {'filename': name, 'defect_type': 'good', 'label': 0, 'score': float(np.float32(0.1)) * index, 'has_mask': True}
        for index, name in enumerate(awkward)
    ]
    results.write_results(tmp_path / 'evaluation' / '7', record, rows)
    folder = tmp_path / 'evaluation' / '7'
    assert sorted(path.name for path in folder.iterdir()) == ['results.csv', 'results.json', 'scores.csv']
    assert json.loads((folder / 'results.json').read_text()) == record
    with open(folder / 'scores.csv', encoding='utf-8', errors='surrogateescape', newline='') as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ['filename', 'defect_type', 'label', 'score']
    assert [row['filename'] for row in read] == awkward
    assert [float(row['score']) for row in read] == [row['score'] for row in rows]
    with open(folder / 'results.csv', newline='') as file:
        (line,) = csv.DictReader(file)
    assert {name: float(value) for name, value in line.items()} == results.all_metrics(record)


def test_results_that_json_does_not_know_leave_the_old_file_alone(tmp_path):
    record = summarise(*make_test_set())
    results.write_results(tmp_path, record, [])
    with pytest.raises(ValueError, match='not JSON compliant'):
        results.write_results(tmp_path, record | {'loss': float('nan')}, [])
    assert json.loads((tmp_path / 'results.json').read_text()) == record


def test_table_shows_every_type_in_aligned_columns():
    record = summarise(*make_test_set())
    lines = results.table(record).splitlines()
    heads, rows = lines[1], lines[2:5]
    assert [row.split()[0] for row in rows] == ['all', 'dent', 'scratch']
    assert len({len(line) for line in (heads, *rows)}) == 1
    assert rows[0].split()[2] == f'{100 * record["metrics"]["image_auroc"]:.1f}'


def test_the_mean_over_categories_lacks_what_a_category_lacks():
    def of_category(auroc, pixel_auroc):
        values = dict.fromkeys(results.METRICS, 0.5) | {'image_auroc': auroc, 'pixel_auroc': pixel_auroc}
        of_full_masks = {'pixel_auroc': auroc / 2, 'pixel_ap': pixel_auroc}
        masks = {'count': 5, 'empty': 1, 'empty_full_mask': 2}
        about = {'step': 7, 'dataset': {'name': 'drawn'}, 'options': {}, 'versions': {}}
        return {**about, 'metrics': values, 'metrics_full_mask': of_full_masks, 'masks': masks}

    together = results.over_categories({'a': of_category(0.5, 0.9), 'b': of_category(1.0, None)})
    assert together['metrics']['image_auroc'] == 0.75
    assert together['metrics']['pixel_auroc'] is None
    assert together['metrics_full_mask'] == {'pixel_auroc': 0.375, 'pixel_ap': None}
    assert together['masks'] == {'count': 10, 'empty': 2, 'empty_full_mask': 4}
    assert together['notes'] == dict.fromkeys(['pixel_auroc', 'pixel_ap_full_mask'], 'there is none of b')
    head, *lines = results.category_table(together).splitlines()
    lines = lines[:3]
    assert [line.split()[:2] for line in lines] == [['a', '50.0'], ['b', '100.0'], ['mean', '75.0']]
    assert len({len(line) for line in (head, *lines)}) == 1
