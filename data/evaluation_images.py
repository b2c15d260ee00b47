"""The test images of an evaluation, read once where memory allows."""

import dataclasses
import functools
import math
from collections.abc import Mapping

from tqdm import tqdm

from data.evaluation_sets import EvaluationSet
from data.sets.in_place import Example

_KEPT_BYTES = 2 * 10**9  # what the decoded test images may take in memory

Names = dict[str, list[str]]  # of the test images of each category


def read_all(
    tests: Mapping[str, EvaluationSet], size: tuple[int, int], kept_bytes: int = _KEPT_BYTES
) -> tuple[dict[str, EvaluationSet], Names]:
    """Reads every image before anything is computed, so that a damaged file shows at once, not after an hour.

    Args:
        tests: {category: EvaluationSet}.
        size: (height, width).
        kept_bytes: up to that size the images, with their masks, stay in memory. If they take more, they are read again
            for each evaluation.

    Returns:
        The sets, to be read again as often as is wanted; and the names of their images.

    Raises:
        UserError: a file cannot be read.
    """
    is_kept = sum(test.count for test in tests.values()) * math.prod(size) * 4 <= kept_bytes
    opened: dict[str, EvaluationSet] = {}
    names: Names = {}
    for category, test in tests.items():
        examples: list[Example] = []
        names[category] = []
        for example in tqdm(test.read(), 'Reading images', test.count, unit='image', leave=False, disable=None):
            names[category].append(example['filename'])
            if is_kept:
                examples.append(example)
        opened[category] = dataclasses.replace(test, read=functools.partial(iter, examples)) if is_kept else test
    return opened, names
