"""Pixel metrics of any number of images, exact, in bounded memory: the scores are sorted and spooled to disk."""

import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from draem_jax.evaluation.metrics import Tally, UndefinedMetric, region_sizes, require_equal_shapes, require_finite

_Part = tuple[np.ndarray, np.ndarray]  # the scores of one image, and, of positives, their region sizes


class PixelRanking:
    """Pixel metrics of any number of images, exact, in memory that does not grow with their number.

    Scores are collected until there are `block_size` of them, sorted, and spooled to a temporary file, as one sorted
    run for each group and label. At the end the runs are merged from the highest score to the lowest, in ranges of at
    most about `block_size` scores. The borders of the ranges come from every n-th score of every run; scores equal to
    a border are only counted, so that even a million equal scores need no room.

    Pixels belong to groups, such as the defect types, and one pass over the file gives the metrics of any number of
    selections of groups.

        with PixelRanking() as pixels:
            for anomaly_map, mask, defect_type in ...:
                pixels.add(anomaly_map, mask, group=defect_type)
            results = pixels.summaries({'all': pixels.groups, 'scratch': ['good', 'scratch']})
    """

    def __init__(self, *, block_size: int = 1 << 22, folder: str | os.PathLike[str] | None = None) -> None:
        """Prepares an empty ranking.

        Args:
            block_size: scores held in memory at once; the peak is about 12 bytes for each.
            folder: where the temporary file goes, 4 bytes per pixel; the system's own place by default.
        """
        self.groups: list[str] = []
        self._block_size = block_size
        self._stride = max(math.isqrt(block_size) // 2, 1)
        directory = None if folder is None else os.fspath(folder)
        self._file = tempfile.SpooledTemporaryFile(max_size=4 * block_size, dir=directory)  # noqa: SIM115 (closed in __exit__)
        self._end = 0  # bytes in the file
        self._runs: list[SortedRun] = []
        self._waiting: dict[tuple[str, bool], list[_Part]] = {}  # (group, is positive) -> its parts
        self._waiting_size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike, group: str = '') -> None:
        """Adds the pixels of one image.

        Args:
            anomaly_map: [H, W] scores, kept as float32.
            mask: [H, W], nonzero on defects.
            group: the name by which `summaries` selects.
        """
        anomaly_map = np.asarray(anomaly_map, np.float32)
        positive = np.asarray(mask) != 0
        require_equal_shapes(anomaly_map, positive)
        if group not in self.groups:
            self.groups.append(group)
        self._waiting.setdefault((group, False), []).append((anomaly_map[~positive], np.zeros(0, np.int32)))
        if positive.any():
            self._waiting.setdefault((group, True), []).append((anomaly_map[positive], region_sizes(positive)))
        self._waiting_size += anomaly_map.size
        if self._waiting_size >= self._block_size:
            self._spool()

    def summaries(
        self, selections: Mapping[str, Sequence[str]], *, max_fpr: float = 0.3
    ) -> dict[str, dict[str, float] | UndefinedMetric]:
        """The metrics of several selections of groups, in one pass.

        Args:
            selections: dict from a name to the groups that it takes together.
            max_fpr: as in `metrics.aupro`.

        Returns:
            dict from each name to the dict of `metrics.summary` with `aupro` added; where the selection has no
            metrics, to the `UndefinedMetric` that says why (as a value, not raised).
        """
        self._spool()
        tallies: dict[str, Tally] = {}
        results: dict[str, dict[str, float] | UndefinedMetric] = {}
        for name, groups in selections.items():
            runs = [run for run in self._runs if run.group in groups]
            positives = sum(len(run) for run in runs if run.is_positive)
            negatives = sum(len(run) for run in runs if not run.is_positive)
            try:
                if not positives or not negatives:
                    raise UndefinedMetric(f'the masks have no {"normal" if positives else "defective"} pixels')
                for run in runs:
                    require_finite(run.samples[:1], run.last)
                tallies[name] = Tally(positives, negatives, max_fpr)
            except UndefinedMetric as reason:
                results[name] = reason
        if tallies:
            self._merge({name: selections[name] for name in tallies}, tallies)
        results.update((name, tally.result()) for name, tally in tallies.items())
        return {name: results[name] for name in selections}

    def _spool(self) -> None:
        """Sorts what is waiting and appends it to the file, one run for each group and label."""
        for (group, is_positive), parts in self._waiting.items():
            scores = np.concatenate([scores for scores, _ in parts])
            if not scores.size:
                continue
            sizes = np.concatenate([sizes for _, sizes in parts])
            if is_positive:
                order = np.argsort(scores)
                scores, sizes = scores[order], sizes[order]
            else:
                scores.sort()
            self._runs.append(SortedRun(self._file, self._end, group, is_positive, scores, self._stride))
            self._file.seek(self._end)
            for array in (scores, sizes):
                self._file.write(array.data)
                self._end += array.nbytes
        self._waiting, self._waiting_size = {}, 0

    def _merge(self, selections: Mapping[str, Sequence[str]], tallies: Mapping[str, Tally]) -> None:
        """Feeds the tallies from the highest score to the lowest."""
        wanted = {group for groups in selections.values() for group in groups}
        runs = [run for run in self._runs if run.group in wanted]
        # A positive, with its region size and its order, takes the memory of four negatives.
        samples = np.sort(np.concatenate([np.repeat(run.samples, 4 if run.is_positive else 1) for run in runs]))
        every = max(self._block_size // self._stride, 1)
        borders = np.unique(samples[every::every])
        starts = {run: [0] + [run.position(border, 'right') for border in borders] for run in runs}
        stops = {run: [run.position(border, 'left') for border in borders] + [len(run)] for run in runs}
        for index in reversed(range(len(borders) + 1)):
            self._merge_between(selections, tallies, {run: (starts[run][index], stops[run][index]) for run in runs})
            if index:
                equal = {run: (stops[run][index - 1], starts[run][index]) for run in runs}
                self._merge_equal(selections, tallies, borders[index - 1], equal)

    def _merge_between(
        self,
        selections: Mapping[str, Sequence[str]],
        tallies: Mapping[str, Tally],
        slices: Mapping['SortedRun', tuple[int, int]],
    ) -> None:
        """Adds the scores of one range, which are read and sorted once for all selections."""
        positives, negatives, sizes = {}, {}, {}
        for group in {run.group for run in slices}:
            parts = [(run, span) for run, span in slices.items() if run.group == group and run.is_positive]
            scores = _joined([run.scores(*span) for run, span in parts], np.float32)
            order = np.argsort(scores)
            positives[group] = scores[order]
            sizes[group] = _joined([run.sizes(*span) for run, span in parts], np.int32)[order]
            parts = [(run, span) for run, span in slices.items() if run.group == group and not run.is_positive]
            negatives[group] = _joined([run.scores(*span) for run, span in parts], np.float32)
            negatives[group].sort()
        for name, groups in selections.items():
            present = [group for group in groups if group in positives]
            tallies[name].add_block(
                [positives[group] for group in present],
                [negatives[group] for group in present],
                [sizes[group] for group in present],
            )

    def _merge_equal(
        self,
        selections: Mapping[str, Sequence[str]],
        tallies: Mapping[str, Tally],
        score: float,
        slices: Mapping['SortedRun', tuple[int, int]],
    ) -> None:
        """Adds the scores that equal a border, which are counted, not read."""
        for name, groups in selections.items():
            positives, negatives, weight = 0, 0, 0.0
            for run, (start, stop) in slices.items():
                if run.group not in groups:
                    continue
                if not run.is_positive:
                    negatives += stop - start
                    continue
                positives += stop - start
                for begin in range(start, stop, self._block_size):
                    sizes = run.sizes(begin, min(begin + self._block_size, stop))
                    weight += float((1 / sizes).sum())
            tallies[name].add_equal(score, positives, negatives, weight)


class SortedRun:
    """The scores of one group and label in the file, ascending, followed by their region sizes if they are positives.

    Attributes:
        group: the group of its pixels.
        is_positive: whether they are defective.
        samples: float32, every n-th of the scores, the first one included.
        last: float32 [1], the highest score.
    """

    def __init__(
        self, file: IO[bytes], offset: int, group: str, is_positive: bool, scores: np.ndarray, stride: int
    ) -> None:
        """Remembers where in the file the scores begin; the caller writes them there, `stride` is n of `samples`."""
        self.group, self.is_positive = group, is_positive
        self.samples, self.last = scores[::stride].copy(), scores[-1:].copy()
        self._file, self._offset, self._size, self._stride = file, offset, scores.size, stride

    def __len__(self) -> int:
        return self._size

    def scores(self, start: int, stop: int) -> np.ndarray:
        """The scores from one place in the run to another: float32 [stop - start]."""
        return self._read(np.float32, self._offset + 4 * start, stop - start)

    def sizes(self, start: int, stop: int) -> np.ndarray:
        """The region sizes of positives, likewise: int32 [stop - start]."""
        return self._read(np.int32, self._offset + 4 * (self._size + start), stop - start)

    def position(self, score: float, side: Literal['left', 'right']) -> int:
        """What np.searchsorted says of the whole run, from its samples and one short read."""
        start = max(int(np.searchsorted(self.samples, score, side)) - 1, 0) * self._stride
        near = self.scores(start, min(start + self._stride, self._size))
        return start + int(np.searchsorted(near, score, side))

    def _read(self, dtype: DTypeLike, offset: int, count: int) -> np.ndarray:
        self._file.seek(offset)
        return np.frombuffer(self._file.read(4 * count), dtype)


def _joined(arrays: Iterable[np.ndarray], dtype: DTypeLike) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays])
