"""Pixel metrics of any number of images, exact, in bounded memory: the scores are sorted and spooled to disk."""

import math
import tempfile

import numpy as np

from draem_jax.evaluation.metrics import Tally, UndefinedMetric, region_sizes, require_equal_shapes, require_finite


class PixelRanking:
    """Pixel metrics of any number of images, exact, in memory that does not grow with their number.

    Scores are collected until there are `block_size` of them, sorted, and spooled as one run to a temporary file.
    At the end the runs are merged from the highest score to the lowest in ranges of at most about `block_size`
    scores. The borders of the ranges come from every n-th score of every run; scores equal to a border are only
    counted, so that even a million equal scores need no room.

    Pixels belong to groups (the defect types, say), and one pass over the file gives the metrics of any number of
    selections of groups.

        with PixelRanking() as pixels:
            for anomaly_map, mask, defect_type in ...:
                pixels.add(anomaly_map, mask, group=defect_type)
            results = pixels.summaries({'all': pixels.groups, 'scratch': ['good', 'scratch']})
    """

    def __init__(self, *, block_size=1 << 22, folder=None):
        """Prepares an empty ranking.

        Args:
            block_size: scores held in memory at once; the peak is about 12 bytes for each.
            folder: where the temporary file goes, 4 bytes per pixel; the system's own place by default.
        """
        self.groups = []
        self._block_size = block_size
        self._stride = max(math.isqrt(block_size) // 2, 1)
        self._file = tempfile.SpooledTemporaryFile(max_size=4 * block_size, dir=folder)  # noqa: SIM115 (closed in __exit__)
        self._end = 0  # bytes in the file
        self._runs = []
        self._waiting = {}  # (group, is positive) -> list of (scores, region sizes or None)
        self._waiting_size = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def add(self, anomaly_map, mask, group=''):
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
        self._waiting.setdefault((group, False), []).append((anomaly_map[~positive], None))
        if positive.any():
            self._waiting.setdefault((group, True), []).append((anomaly_map[positive], region_sizes(positive)))
        self._waiting_size += anomaly_map.size
        if self._waiting_size >= self._block_size:
            self._spool()

    def summaries(self, selections, *, max_fpr=0.3):
        """The metrics of several selections of groups, in one pass.

        Args:
            selections: dict from a name to the groups that it takes together.
            max_fpr: as in `aupro`.

        Returns:
            dict from each name to the dict of `summary` with `aupro` added, or to the `UndefinedMetric` (as a value,
            not raised) where the selection has none.
        """
        self._spool()
        tallies, results = {}, {}
        for name, groups in selections.items():
            runs = [run for run in self._runs if run.group in groups]
            positives = sum(len(run) for run in runs if run.positive)
            negatives = sum(len(run) for run in runs if not run.positive)
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

    def _spool(self):
        """Sorts what is waiting and appends it to the file, one run for each group and label."""
        for (group, positive), parts in self._waiting.items():
            scores = np.concatenate([scores for scores, _ in parts])
            if not scores.size:
                continue
            sizes = None
            if positive:
                sizes = np.concatenate([sizes for _, sizes in parts])
                order = np.argsort(scores)
                scores, sizes = scores[order], sizes[order]
            else:
                scores.sort()
            self._runs.append(SortedRun(group, positive, self._end, scores, self._stride))
            self._file.seek(self._end)
            for array in (scores, sizes) if positive else (scores,):
                self._file.write(array.data)
                self._end += array.nbytes
        self._waiting, self._waiting_size = {}, 0

    def _merge(self, selections, tallies):
        """Feeds the tallies from the highest score to the lowest."""
        wanted = set().union(*selections.values())
        runs = [run for run in self._runs if run.group in wanted]
        # A positive, with its region size and its order, takes the memory of four negatives.
        samples = np.sort(np.concatenate([np.repeat(run.samples, 4 if run.positive else 1) for run in runs]))
        every = max(self._block_size // self._stride, 1)
        borders = np.unique(samples[every::every])
        starts = {run: [0] + [run.position(self._file, border, 'right') for border in borders] for run in runs}
        stops = {run: [run.position(self._file, border, 'left') for border in borders] + [len(run)] for run in runs}
        for index in reversed(range(len(borders) + 1)):
            self._merge_between(selections, tallies, {run: (starts[run][index], stops[run][index]) for run in runs})
            if index:
                equal = {run: (stops[run][index - 1], starts[run][index]) for run in runs}
                self._merge_equal(selections, tallies, borders[index - 1], equal)

    def _merge_between(self, selections, tallies, slices):
        """The scores of one range, read and sorted once for all selections."""
        positives, negatives, sizes = {}, {}, {}
        for group in {run.group for run in slices}:
            found = [(run, *span) for run, span in slices.items() if run.group == group and run.positive]
            scores = _joined([run.scores(self._file, *span) for run, *span in found], np.float32)
            order = np.argsort(scores)
            positives[group] = scores[order]
            sizes[group] = _joined([run.sizes(self._file, *span) for run, *span in found], np.int32)[order]
            found = [(run, *span) for run, span in slices.items() if run.group == group and not run.positive]
            negatives[group] = _joined([run.scores(self._file, *span) for run, *span in found], np.float32)
            negatives[group].sort()
        for name, groups in selections.items():
            parts = [group for group in groups if group in positives]
            tallies[name].add_block(*([values[group] for group in parts] for values in (positives, negatives, sizes)))

    def _merge_equal(self, selections, tallies, score, slices):
        """The scores equal to a border: counted, not read."""
        for name, groups in selections.items():
            positives, negatives, weight = 0, 0, 0.0
            for run, (start, stop) in slices.items():
                if run.group not in groups:
                    continue
                if not run.positive:
                    negatives += stop - start
                    continue
                positives += stop - start
                for begin in range(start, stop, self._block_size):
                    sizes = run.sizes(self._file, begin, min(begin + self._block_size, stop))
                    weight += float((1 / sizes).sum())
            tallies[name].add_equal(score, positives, negatives, weight)


class SortedRun:
    """Sorted scores of one group in the file, followed by their region sizes if they are positives."""

    def __init__(self, group, positive, offset, scores, stride):
        self.group, self.positive = group, positive
        self.samples, self.last = scores[::stride].copy(), scores[-1:].copy()
        self._offset, self._size, self._stride = offset, scores.size, stride

    def __len__(self):
        return self._size

    def scores(self, file, start, stop):
        return _read(file, np.float32, self._offset + 4 * start, stop - start)

    def sizes(self, file, start, stop):
        return _read(file, np.int32, self._offset + 4 * (self._size + start), stop - start)

    def position(self, file, score, side):
        """What np.searchsorted says of the whole run, from its samples and one short read."""
        start = max(int(np.searchsorted(self.samples, score, side)) - 1, 0) * self._stride
        near = self.scores(file, start, min(start + self._stride, self._size))
        return start + int(np.searchsorted(near, score, side))


def _joined(arrays, dtype):
    return np.concatenate([np.zeros(0, dtype), *arrays])


def _read(file, dtype, offset, count):
    file.seek(offset)
    return np.frombuffer(file.read(4 * count), dtype)
