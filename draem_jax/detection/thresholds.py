"""Thresholds from the scores and maps of normal images, and how certain they are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Threshold = dict[str, Any]  # What `image_threshold` and `pixel_threshold` return.

CONFIDENCE = 0.95  # that the intervals have
MIN_NORMALS_FOR_PIXELS = 20  # Below it, a bootstrap over images shows less spread than there is.
# The largest threshold there can be: scores and maps are at most 1, as float32, and reach none above it.
HIGHEST = float(np.nextafter(np.float32(1), np.float32(2)))

# The levels at which the pixels of maps are counted. They are 0.008 apart in the logit, which changes a threshold by
# less than one hundredth of its odds. The last one is the first number above 1, which no pixel reaches. All of them are
# float32, as maps are, so that counts here and comparisons later agree.
_PROBABILITIES = 1 / (1 + np.exp(-np.linspace(-16, 16, 4097)))
LEVELS = np.unique(np.append(_PROBABILITIES, HIGHEST).astype(np.float32))


def image_threshold(scores: Sequence[float] | np.ndarray, target_fpr: float) -> Threshold:
    """The threshold that a normal image reaches with at most the wanted probability.

    With N scores and r = ceil((1 - target) (N + 1)), the threshold is the first number above the r-th smallest score.
    Other normal images would have given another threshold, so the false-positive rate at it is itself random. For
    continuous scores it follows Beta(N + 1 - r, r), whatever the distribution of the scores. Its mean,
    (N + 1 - r) / (N + 1), is at most the target; with ties the rate is lower. If r exceeds N, which means
    N < 1 / target - 1, no score is high enough: the highest is taken, and `note` says so.

    Args:
        scores: [N] scores of normal images, N >= 1.
        target_fpr: wanted false-positive rate, in (0, 1).

    Returns:
        dict: threshold (an image is defective where score >= threshold), target_fpr, expected_fpr (mean of the Beta
        distribution), interval (its central 95 %: the rate on other normal images lies in it with that probability),
        confidence, enough_normals, note (string or None).

    References:
        Wilks, Determination of sample sizes for setting tolerance limits, 1941; David and Nagaraja, Order Statistics,
        2003, chapter 7; Vovk, Conditional validity of inductive conformal predictors, 2012.
    """
    scores = np.sort(np.asarray(scores, np.float32))
    number = len(scores)
    # Products such as 0.07 * 100 come out just above or below the integer that they mean, hence the allowance.
    above = math.floor(target_fpr * (number + 1) + 1e-9)
    enough = above >= 1
    above = max(above, 1)
    threshold = np.nextafter(scores[number - above], np.float32(np.inf))
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    from scipy import special  # Slow to import, and predict.py only reads calibrations.

    interval = special.betaincinv(above, number + 1 - above, tails)
    note = None
    if not enough:
        note = (
            f'{number} normal images are too few for a false-positive rate of {target_fpr:g}, which takes at least '
            f'{normals_needed(target_fpr)}: the threshold is just above the highest of them, and the expected rate is '
            f'{above / (number + 1):.3g}.'
        )
    return {
        'threshold': float(threshold),
        'target_fpr': target_fpr,
        'expected_fpr': above / (number + 1),
        'interval': interval.tolist(),
        'confidence': CONFIDENCE,
        'enough_normals': enough,
        'note': note,
    }


def normals_needed(target_fpr: float) -> int:
    """The smallest number of normal images with which `image_threshold` can promise a rate."""
    return math.ceil(1 / target_fpr - 1e-9) - 1


def counts_above(anomaly_map: np.ndarray) -> np.ndarray:
    """int64 [levels]: how many pixels of a map are at or above each of `LEVELS`."""
    bins = np.searchsorted(LEVELS, anomaly_map.ravel(), side='right')
    return np.cumsum(np.bincount(bins, minlength=len(LEVELS) + 1)[::-1])[::-1][1:]


def pixel_threshold(
    counts: Sequence[np.ndarray],
    sizes: Sequence[int],
    target_fpr: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Threshold:
    """The threshold that the wanted part of all pixels of normal images reaches.

    It is the smallest of `LEVELS` at which the rate over all pixels of all images is at most the target. The pixels of
    one image resemble each other, so the uncertainty comes from the choice of images. They are drawn with replacement
    many times, each draw gives a threshold, and the interval holds the central 95 % of the rates that these thresholds
    have on all images.

    Args:
        counts: [N, levels] from `counts_above`, one row for each normal image.
        sizes: [N] pixels of each image.
        target_fpr: wanted part of the pixels, in (0, 1).
        resamples: how many times the images are drawn.
        seed: of the draws.

    Returns:
        dict as from `image_threshold`; expected_fpr is the rate on these images, interval is None for a single one.

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Davison and Hinkley, Bootstrap Methods and their
        Application, 1997, section 3.8 (resampling whole groups).
    """
    reached, pixels = np.asarray(counts, np.float64), np.asarray(sizes, np.float64)
    number = len(reached)
    rates = reached.sum(axis=0) / pixels.sum()
    level = _first_within(rates, target_fpr)
    interval = None
    if number > 1:
        draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
        drawn_rates = (draws @ reached) / (draws @ pixels)[:, None]
        tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
        interval = np.quantile(rates[_first_within(drawn_rates, target_fpr)], tails).tolist()
    enough = number >= MIN_NORMALS_FOR_PIXELS
    note = None
    if not enough:
        note = (
            f'{number} normal images are too few to say how far the rate will differ on other images: with fewer than '
            f'{MIN_NORMALS_FOR_PIXELS} the interval is too narrow.'
        )
    return {
        'threshold': float(LEVELS[level]),
        'target_fpr': target_fpr,
        'expected_fpr': float(rates[level]),
        'interval': interval,
        'confidence': CONFIDENCE,
        'enough_normals': enough,
        'note': note,
    }


def _first_within(rates: np.ndarray, target_fpr: float) -> Any:
    """The index of the first level whose rate is within the target; rates [..., levels] fall along the last axis."""
    return np.argmax(rates <= target_fpr, axis=-1)
