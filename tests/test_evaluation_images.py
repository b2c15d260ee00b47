"""The test images of an evaluation: read once where memory allows."""

import numpy as np
import pytest

from data.evaluation_images import read_all
from data.evaluation_sets import EvaluationSet


def make_set(reads):
    def read():
        for k in range(3):
            reads.append(k)
            yield {'filename': f'{k}.png', 'image': np.full((32, 32, 3), k, np.uint8)}

    return EvaluationSet(3, read)


@pytest.mark.parametrize(('kept_bytes', 'times'), [(3 * 32 * 32 * 4, 1), (3 * 32 * 32 * 4 - 1, 3)])
def test_images_are_read_once_if_they_fit_and_come_back_the_same(kept_bytes, times):
    reads = []
    opened, names = read_all({'a': make_set(reads)}, (32, 32), kept_bytes)
    assert reads == [0, 1, 2]
    for _ in range(2):
        assert [example['image'][0, 0, 0] for example in opened['a'].read()] == [0, 1, 2]
    assert len(reads) == 3 * times
    assert names == {'a': ['0.png', '1.png', '2.png']}
