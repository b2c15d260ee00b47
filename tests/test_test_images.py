"""The test images of an evaluation: read once where memory allows, and named without being read."""

import numpy as np
import pytest
from trees import draw_tree

from data.evaluation_sets import EvaluationSet
from data.test_images import list_names, read_all


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


def test_the_names_of_another_root_are_listed_or_unknown(tmp_path):
    draw_tree(tmp_path / 'parts', good=1, scratched=1)
    dataset = {'name': 'folder', 'category': '', 'options': '', 'root': str(tmp_path / 'parts')}
    assert list_names(dataset) == {'': ['test/good/000.png', 'test/scratch/000.png']}
    for root in (str(tmp_path / 'nowhere'), 'http://nowhere/x'):
        assert list_names(dataset | {'root': root}) is None
