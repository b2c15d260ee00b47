"""Pixel metrics from a spooled ranking against the metrics of all pixels in memory and a naive loop."""

import errno

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from sklearn import metrics as sklearn_metrics
from tiny_maps import naive_aupro, random_maps

from draem_jax.evaluation import metrics, pixel_ranking


@pytest.mark.parametrize('block_size', [16, 700, 1 << 22])
def test_pixel_ranking_equals_the_metrics_of_its_pixels(block_size):
    maps, masks = random_maps(7, count=9, size=20, levels=10**6)
    maps[::2] = np.round(maps[::2], 1)
    maps[:, :5] = 0.0  # one heavy tie, larger than a block
    groups = ['good', 'good', 'good', 'dent', 'scratch', 'dent', 'dent', 'scratch', 'scratch']
    selections = {'all': ['good', 'dent', 'scratch'], 'dent': ['good', 'dent']}
    with pixel_ranking.PixelRanking(block_size=block_size) as pixels:
        for arguments in zip(maps, masks, groups, strict=True):
            pixels.add(*arguments)
        results = pixels.summaries(selections, max_fpr=0.2)
    for name, selected in selections.items():
        chosen = np.isin(groups, selected)
        expected = metrics.summary(maps[chosen], masks[chosen])
        expected['aupro'] = naive_aupro(maps[chosen], masks[chosen], 0.2)
        assert results[name] == pytest.approx(expected, abs=1e-12)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(seed=strategies.integers(0, 10**6), levels=strategies.integers(1, 50))
def test_pixel_ranking_is_exact_whatever_the_ties(seed, levels):
    maps, masks = random_maps(seed, count=4, size=8, levels=levels)
    hypothesis.assume(masks.any())
    with pixel_ranking.PixelRanking(block_size=37) as pixels:
        for anomaly_map, mask in zip(maps, masks, strict=True):
            pixels.add(anomaly_map, mask)
        result = pixels.summaries({'all': ['']}, max_fpr=0.3)['all']
    assert result['auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert result['aupro'] == pytest.approx(naive_aupro(maps, masks, 0.3), abs=1e-12)
    assert result == pytest.approx(metrics.summary(maps, masks) | {'aupro': result['aupro']}, abs=1e-12)


@pytest.mark.parametrize('block_size', [16, 700, 1 << 22])
def test_the_cores_of_masks_give_what_they_give_as_masks(block_size):
    maps, masks = random_maps(11, count=9, size=20, levels=30)
    maps[:, :5] = 0.0  # one heavy tie, larger than a block
    cores = masks * np.random.default_rng(0).integers(0, 2, masks.shape)
    cores[5] = 0  # a mask that the narrower rule loses
    groups = ['good', 'good', 'good', 'dent', 'scratch', 'dent', 'dent', 'scratch', 'scratch']
    everything = ['good', 'dent', 'scratch']
    with pixel_ranking.PixelRanking(block_size=block_size) as pixels:
        for anomaly_map, mask, group, core in zip(maps, masks, groups, cores, strict=True):
            pixels.add(anomaly_map, mask, group, core)
        of_cores = {'cores': everything, 'dent cores': ['good', 'dent']}
        both = pixels.summaries({'all': everything}, max_fpr=0.2, of_cores=of_cores)
        masks_counted = pixels.masks
    for name, selected in of_cores.items():
        chosen = np.isin(groups, selected)
        assert both[name] == pytest.approx(metrics.summary(maps[chosen], cores[chosen]), abs=1e-12)
    expected = metrics.summary(maps, masks) | {'aupro': naive_aupro(maps, masks, 0.2)}
    assert both['all'] == pytest.approx(expected, abs=1e-12)
    assert masks_counted == {'good': (3, 3, 3), 'dent': (3, 0, 1), 'scratch': (3, 0, 0)}


def test_masks_without_a_core_have_no_metrics_by_the_narrower_rule():
    with pixel_ranking.PixelRanking() as pixels:
        pixels.add(np.arange(16).reshape(4, 4), np.eye(4), core=np.zeros((4, 4)))
        found = pixels.summaries({'all': ['']}, of_cores={'cores': ['']})
    assert 0 < found['all']['auroc'] < 1
    assert 'no defective pixels' in str(found['cores'])


def test_a_full_disk_is_told_with_the_folder(tmp_path, monkeypatch):
    with pixel_ranking.PixelRanking(block_size=16, folder=tmp_path) as pixels:

        def write(data):
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(pixels._file, 'write', write)
        with pytest.raises(OSError, match='No space left') as error:
            pixels.add(np.arange(16).reshape(4, 4), np.eye(4))
    assert error.value.filename == str(tmp_path)


def test_pixel_ranking_names_what_is_missing():
    with pixel_ranking.PixelRanking() as pixels:
        pixels.add(np.zeros((4, 4)), np.zeros((4, 4)), group='good')
        pixels.add(np.full((4, 4), np.nan), np.eye(4), group='dent')
        results = pixels.summaries({'good': ['good'], 'dent': ['good', 'dent'], 'none': []})
    assert 'no defective pixels' in str(results['good'])
    assert 'not finite' in str(results['dent'])
    assert isinstance(results['none'], metrics.UndefinedMetric)
