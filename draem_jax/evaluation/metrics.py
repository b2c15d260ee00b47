"""Ranking metrics in NumPy: AUROC, average precision, F1-max and AUPRO; exact, ties included.

All of them follow from the ranks of the positive scores: for each one, how many positives and how many
negatives are at least as high. Precision, recall and F1 only improve at the score of a positive, so the
negatives, some 97 % of all pixels, are sorted and searched but never turned into a curve.

    summary(scores, labels)     AUROC, average precision, F1-max and its threshold, for one sort
    aupro(maps, masks)          per-region overlap
    rates(scores, labels, t)    true positive rate, true negative rate and accuracy of a decision
    curves(scores, labels)      what ROC and precision-recall curves are drawn from
    Tally                       the sums behind them, for scores that come in pieces (`pixel_ranking`)

A score counts as positive where score >= threshold. A metric that has no value (no positives, no
negatives, scores that are not finite) raises `UndefinedMetric` with the reason.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

# Positives are ranked in chunks of this size, so that the counts for them stay small beside the scores.
CHUNK_SIZE = 1 << 17


class UndefinedMetric(ValueError):  # noqa: N818 (it tells a state of the data, not a mistake)
    """The metric has no value on these data; the message is the reason, in one line."""


def summary(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Every metric that one ranking of scores gives.

    Args:
        scores: array of any shape, higher is more anomalous.
        labels: array of the same shape, 1 or True on positives and 0 elsewhere.

    Returns:
        dict with `auroc`, `average_precision`, `f1_max` and `threshold`, the highest one that reaches `f1_max`.

    Raises:
        UndefinedMetric: without positives, without negatives, or where a score is not finite.
        ValueError: where the shapes differ.
    """
    positives, negatives = _split(scores, labels)
    tally = Tally(positives.size, negatives.size)
    positives.sort()
    negatives.sort()
    tally.add_block([positives], [negatives])
    return tally.result()


def aupro(maps: ArrayLike, masks: ArrayLike, *, max_fpr: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

    At each threshold, a share of every connected region of the masks (8 neighbours) is found; the overlap is the
    mean of these shares. The false-positive rate is taken over all normal pixels of all images. The curve is linear
    between its points and cut exactly at `max_fpr`.

    Args:
        maps: [N, H, W] anomaly scores.
        masks: [N, H, W], nonzero on defects.
        max_fpr: in (0, 1].

    Returns:
        A number in [0, 1].

    Raises:
        UndefinedMetric: as `summary`.

    References:
        Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, section 5.3.
    """
    maps, masks = np.asarray(maps), np.asarray(masks)
    positives, negatives = _split(maps, masks)
    tally = Tally(positives.size, negatives.size, max_fpr)
    sizes = np.concatenate([region_sizes(mask) for mask in masks])
    order = np.argsort(positives)
    negatives.sort()
    tally.add_block([positives[order]], [negatives], [sizes[order]])
    return tally.result()['aupro']


def region_sizes(mask: ArrayLike) -> np.ndarray:
    """For every defective pixel, the number of pixels of the region it belongs to.

    Args:
        mask: [H, W], nonzero on defects.

    Returns:
        int32 [P], P defective pixels in the order of `mask.nonzero()`; regions join over 8 neighbours.
    """
    defective = np.asarray(mask) != 0
    if not defective.any():
        return np.zeros(0, np.int32)
    regions, _ = ndimage.label(defective, structure=np.ones((3, 3), bool))
    regions = regions[defective]
    return np.bincount(regions).astype(np.int32)[regions]


def rates(scores: ArrayLike, labels: ArrayLike, threshold: float) -> dict[str, float]:
    """How much the decision score >= threshold gets right.

    Returns:
        dict with `tpr` (defects found), `tnr` (normals passed) and `accuracy` (both together), in [0, 1].

    Raises:
        UndefinedMetric: as `summary`.
    """
    positives, negatives = _split(scores, labels)
    true_positives = int(np.count_nonzero(positives >= threshold))
    true_negatives = int(np.count_nonzero(negatives < threshold))
    return {
        'tpr': true_positives / positives.size,
        'tnr': true_negatives / negatives.size,
        'accuracy': (true_positives + true_negatives) / (positives.size + negatives.size),
    }


def curves(scores: ArrayLike, labels: ArrayLike) -> dict[str, np.ndarray]:
    """The points of the ROC curve and of the precision-recall curve, one for each different score.

    Args:
        scores: array of any shape, higher is more anomalous.
        labels: array of the same shape, 1 or True on positives and 0 elsewhere.

    Returns:
        dict of float64 [T]: `thresholds` from the highest score to the lowest, and the rates of the decision
        score >= threshold: `tpr` (which is recall), `fpr` and `precision`. The ROC curve's point (0, 0), at a
        threshold above all scores, is not among them.

    Raises:
        UndefinedMetric: as `summary`.
    """
    positives, negatives = _split(scores, labels)
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1].astype(np.float64)
    true_positives, false_positives = (
        array.size - np.searchsorted(np.sort(array), thresholds, 'left') for array in (positives, negatives)
    )
    return {
        'thresholds': thresholds,
        'tpr': true_positives / positives.size,
        'fpr': false_positives / negatives.size,
        'precision': true_positives / (true_positives + false_positives),
    }


class Tally:
    """The sums behind the metrics of one ranking, fed piece by piece from the highest scores to the lowest.

    Args:
        positives: how many positives there are in all pieces, at least 1.
        negatives: likewise.
        max_fpr: the false-positive rate up to which AUPRO integrates, in (0, 1]; None for no AUPRO.
    """

    def __init__(self, positives: int, negatives: int, max_fpr: float | None = None) -> None:
        if max_fpr is not None and not 0 < max_fpr <= 1:
            raise ValueError(f'max_fpr must lie in (0, 1]; found {max_fpr}')
        self._positives, self._negatives = positives, negatives
        self._limit = None if max_fpr is None else max_fpr * negatives  # false positives
        self._positives_above = self._negatives_above = 0
        self._half_pairs = 0  # an integer: two for each pair in the right order, one for each tie
        self._precisions = 0.0
        self._best = (-1.0, -math.inf)
        self._weight = self._overlap = 0.0

    def add_block(
        self,
        positives: Sequence[np.ndarray],
        negatives: Sequence[np.ndarray],
        sizes: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Adds all scores of a range, which lies below everything added before.

        Args:
            positives: arrays of scores, each sorted in ascending order.
            negatives: likewise.
            sizes: arrays with the region size of each of the positives; needed for AUPRO only.
        """
        for index, array in enumerate(positives):
            for start in range(0, array.size, CHUNK_SIZE):
                chunk = slice(start, start + CHUNK_SIZE)
                scores = array[chunk]
                self._add(
                    scores,
                    true_positives=self._positives_above + _count(positives, scores, 'left'),
                    false_positives=self._negatives_above + _count(negatives, scores, 'left'),
                    higher=self._negatives_above + _count(negatives, scores, 'right'),
                    count=1,
                    weight=0.0 if sizes is None else 1 / sizes[index][chunk],
                )
        self._positives_above += sum(array.size for array in positives)
        self._negatives_above += sum(array.size for array in negatives)

    def add_equal(self, score: float, positives: int, negatives: int, weight: float) -> None:
        """Adds scores that are all equal, as many as there are `positives` and `negatives`.

        `weight` is the sum of 1 / region size over the positives.
        """
        higher = self._negatives_above
        self._positives_above += positives
        self._negatives_above += negatives
        if positives:
            self._add(
                np.array([score]),
                true_positives=np.array([self._positives_above]),
                false_positives=np.array([self._negatives_above]),
                higher=np.array([higher]),
                count=positives,
                weight=weight,
            )

    def _add(
        self,
        scores: np.ndarray,
        true_positives: np.ndarray,
        false_positives: np.ndarray,
        higher: np.ndarray,
        count: int,
        weight: np.ndarray | float,
    ) -> None:
        """Adds positives by their ranks.

        Args:
            scores: [n], ascending.
            true_positives: int64 [n], positives at or above the score.
            false_positives: int64 [n], negatives at or above the score.
            higher: int64 [n], negatives above it.
            count: how many positives each entry stands for.
            weight: [n] or scalar, the part of each entry in the per-region overlap.
        """
        self._half_pairs += count * int((2 * self._negatives - false_positives - higher).sum())
        called_positive = true_positives + false_positives
        self._precisions += count * float((true_positives / called_positive).sum())
        f1 = 2 * true_positives / (called_positive + self._positives)
        best = f1.size - 1 - int(np.argmax(f1[::-1]))
        self._best = max(self._best, (float(f1[best]), float(scores[best])))
        if self._limit is not None:
            # A positive lifts the curve by its weight: at once, or along a ramp over the negatives that tie with it.
            ramp = false_positives - higher
            reached = np.clip(self._limit - higher, 0, ramp)
            area = reached**2 / np.maximum(2 * ramp, 1) + np.maximum(self._limit - false_positives, 0)
            self._overlap += float((weight * area).sum())
            self._weight += float(np.sum(weight))

    def result(self) -> dict[str, float]:
        """Returns what `summary` does, and `aupro` if `max_fpr` was given; call it once all scores are added."""
        result = {
            'auroc': self._half_pairs / (2 * self._positives * self._negatives),
            'average_precision': self._precisions / self._positives,
            'f1_max': self._best[0],
            'threshold': self._best[1],
        }
        if self._limit is not None:
            # The weights of one region add up to one.
            result['aupro'] = self._overlap / (round(self._weight) * self._limit)
        return result


def _split(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Copies of the scores of the positives and of the negatives, each 1-D."""
    scores, positive = np.asarray(scores), np.asarray(labels) != 0
    require_equal_shapes(scores, positive)
    positives, negatives = scores[positive], scores[~positive]
    for array in (positives, negatives):
        if array.size:
            # The extremes are NaN or infinite if any score is, and need no array of flags.
            require_finite(array.min(), array.max())
    if not positives.size or not negatives.size:
        missing = 'positives' if not positives.size else 'negatives'
        raise UndefinedMetric(f'there are no {missing} among {positive.size} labels')
    return positives, negatives


def _count(arrays: Sequence[np.ndarray], scores: np.ndarray, side: Literal['left', 'right']) -> np.ndarray:
    """How many entries of the sorted arrays are at or above (left) or above (right) each score."""
    counts = np.zeros(scores.size, np.int64)
    for array in arrays:
        counts += array.size - np.searchsorted(array, scores, side)
    return counts


def require_finite(*scores: ArrayLike) -> None:
    """Raises `UndefinedMetric` where a score is NaN or infinite; the extremes of sorted scores stand for all."""
    if not all(np.isfinite(part).all() for part in scores):
        raise UndefinedMetric('some scores are not finite numbers')


def require_equal_shapes(scores: np.ndarray, labels: np.ndarray) -> None:
    """Raises ValueError, which names both shapes, where they differ."""
    if scores.shape != labels.shape:
        raise ValueError(f'scores and labels must have one shape; found {scores.shape} and {labels.shape}')
