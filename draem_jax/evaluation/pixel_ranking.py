"""Pixel metrics of any number of images, exact, in bounded memory: the scores are sorted and spooled to disk."""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from draem_jax.evaluation.metrics import Tally, UndefinedMetric, region_sizes, require_equal_shapes, require_finite

_Part = tuple[np.ndarray, np.ndarray]  # the scores of one image, and, of positives, their region sizes

# The classes of pixels. A rim is defective by the rule of the mask, and normal by the narrower rule of the core.
_NORMAL, _RIM, _CORE = range(3)


class _Selection(NamedTuple):
    """The pixels of some groups, those of class `least` and above as positives."""

    groups: Sequence[str]
    least: int


class PixelRanking:
    """Pixel metrics of any number of images, exact, in memory that does not grow with their number.

    Scores are collected until there are `block_size` of them, sorted, and spooled to a temporary file, as one sorted
    run for each group and class of pixels. At the end the runs are merged from the highest score to the lowest, in
    ranges of at most about `block_size` scores. The borders of the ranges come from every n-th score of every run;
    scores equal to a border are only counted, so that even a million equal scores need no room.

    Pixels belong to groups, such as the defect types, and one pass over the file gives the metrics of any number of
    selections of groups. A second, narrower rule of which pixels are defective can be told along with the masks: its
    metrics come from the same pass, because its pixels are unions of the same runs.

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
        self.masks: dict[str, MaskCounts] = {}  # of each group
        self._block_size = block_size
        self._stride = max(math.isqrt(block_size) // 2, 1)
        self._folder = tempfile.gettempdir() if folder is None else os.fspath(folder)
        self._file = tempfile.SpooledTemporaryFile(max_size=4 * block_size, dir=self._folder)  # noqa: SIM115 (closed in __exit__)
        self._end = 0  # bytes in the file
        self._runs: list[SortedRun] = []
        self._waiting: dict[tuple[str, int], list[_Part]] = {}  # (group, class) -> its parts
        self._waiting_size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike, group: str = '', core: ArrayLike | None = None) -> None:
        """Adds the pixels of one image.

        Args:
            anomaly_map: [H, W] scores, kept as float32.
            mask: [H, W], nonzero on defects.
            group: the name by which `summaries` selects.
            core: [H, W], nonzero on those pixels of the mask that are defective by the narrower rule too; all by
                default.
        """
        anomaly_map = np.asarray(anomaly_map, np.float32)
        positive = np.asarray(mask) != 0
        in_core = positive if core is None else positive & (np.asarray(core) != 0)
        require_equal_shapes(anomaly_map, positive)
        require_equal_shapes(anomaly_map, in_core)
        if group not in self.groups:
            self.groups.append(group)
        self.masks[group] = self.masks.get(group, MaskCounts()).plus(positive, in_core)
        self._waiting.setdefault((group, _NORMAL), []).append((anomaly_map[~positive], np.zeros(0, np.int32)))
        if positive.any():
            scores, sizes = anomaly_map[positive], region_sizes(positive)
            for level, chosen in ((_RIM, ~in_core[positive]), (_CORE, in_core[positive])):
                self._waiting.setdefault((group, level), []).append((scores[chosen], sizes[chosen]))
        self._waiting_size += anomaly_map.size
        if self._waiting_size >= self._block_size:
            self._spool()

    def summaries(
        self,
        selections: Mapping[str, Sequence[str]],
        *,
        max_fpr: float = 0.3,
        of_cores: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, dict[str, float] | UndefinedMetric]:
        """The metrics of several selections of groups, in one pass.

        Args:
            selections: dict from a name to the groups that it takes together.
            max_fpr: as in `metrics.aupro`.
            of_cores: further selections, under other names, in which only the cores of the masks are defective.

        Returns:
            dict from each name to the dict of `metrics.summary`, with `aupro` added for those of `selections`; where
            the selection has no metrics, to the `UndefinedMetric` that says why (as a value, not raised).
        """
        self._spool()
        chosen = {name: _Selection(groups, _RIM) for name, groups in selections.items()}
        chosen |= {name: _Selection(groups, _CORE) for name, groups in (of_cores or {}).items()}
        tallies: dict[str, Tally] = {}
        results: dict[str, dict[str, float] | UndefinedMetric] = {}
        for name, (groups, least) in chosen.items():
            runs = [run for run in self._runs if run.group in groups]
            positives = sum(len(run) for run in runs if run.level >= least)
            negatives = sum(len(run) for run in runs if run.level < least)
            try:
                if not positives or not negatives:
                    raise UndefinedMetric(f'the masks have no {"normal" if positives else "defective"} pixels')
                for run in runs:
                    require_finite(run.samples[:1], run.last)
                # Regions belong to whole masks, not to their cores.
                tallies[name] = Tally(positives, negatives, max_fpr if least == _RIM else None)
            except UndefinedMetric as reason:
                results[name] = reason
        if tallies:
            self._merge({name: chosen[name] for name in tallies}, tallies)
        results.update((name, tally.result()) for name, tally in tallies.items())
        return {name: results[name] for name in chosen}

    def _spool(self) -> None:
        """Sorts what is waiting and appends it to the file, one run for each group and class."""
        for (group, level), parts in self._waiting.items():
            scores = np.concatenate([scores for scores, _ in parts])
            if not scores.size:
                continue
            sizes = np.concatenate([sizes for _, sizes in parts])
            if level == _NORMAL:
                scores.sort()
            else:
                order = np.argsort(scores)
                scores, sizes = scores[order], sizes[order]
            with _naming_folder(self._folder):
                self._runs.append(SortedRun(self._file, self._end, group, level, scores, self._stride))
                self._file.seek(self._end)
                for array in (scores, sizes):
                    self._file.write(array.data)
                    self._end += array.nbytes
        self._waiting, self._waiting_size = {}, 0

    def _merge(self, selections: Mapping[str, _Selection], tallies: Mapping[str, Tally]) -> None:
        """Feeds the tallies from the highest score to the lowest."""
        wanted = {group for selection in selections.values() for group in selection.groups}
        runs = [run for run in self._runs if run.group in wanted]
        # A positive, with its region size and its order, takes the memory of four negatives.
        samples = np.sort(np.concatenate([np.repeat(run.samples, 1 if run.level == _NORMAL else 4) for run in runs]))
        every = max(self._block_size // self._stride, 1)
        borders = np.unique(samples[every::every])
        with _naming_folder(self._folder):  # Reading writes what the file's buffer still holds.
            starts = {run: [0] + [run.position(border, 'right') for border in borders] for run in runs}
            stops = {run: [run.position(border, 'left') for border in borders] + [len(run)] for run in runs}
            for index in reversed(range(len(borders) + 1)):
                between = {run: (starts[run][index], stops[run][index]) for run in runs}
                self._merge_between(selections, tallies, between)
                if index:
                    equal = {run: (stops[run][index - 1], starts[run][index]) for run in runs}
                    self._merge_equal(selections, tallies, borders[index - 1], equal)

    def _merge_between(
        self,
        selections: Mapping[str, _Selection],
        tallies: Mapping[str, Tally],
        slices: Mapping['SortedRun', tuple[int, int]],
    ) -> None:
        """Adds the scores of one range, which are read and sorted once for all selections."""
        scores, sizes = {}, {}
        for key in {(run.group, run.level): None for run in slices}:  # in the order of the runs
            parts = [(run, span) for run, span in slices.items() if (run.group, run.level) == key]
            scores[key] = _joined([run.scores(*span) for run, span in parts], np.float32)
            if key[1] == _NORMAL:
                scores[key].sort()
            else:
                order = np.argsort(scores[key])
                scores[key] = scores[key][order]
                sizes[key] = _joined([run.sizes(*span) for run, span in parts], np.int32)[order]
        for name, (groups, least) in selections.items():
            present = [key for key in scores if key[0] in groups]
            positives = [key for key in present if key[1] >= least]
            tallies[name].add_block(
                [scores[key] for key in positives],
                [scores[key] for key in present if key[1] < least],
                [sizes[key] for key in positives],
            )

    def _merge_equal(
        self,
        selections: Mapping[str, _Selection],
        tallies: Mapping[str, Tally],
        score: float,
        slices: Mapping['SortedRun', tuple[int, int]],
    ) -> None:
        """Adds the scores that equal a border, which are counted, not read."""
        for name, (groups, least) in selections.items():
            positives, negatives, weight = 0, 0, 0.0
            for run, (start, stop) in slices.items():
                if run.group not in groups:
                    continue
                if run.level < least:
                    negatives += stop - start
                    continue
                positives += stop - start
                for begin in range(start, stop, self._block_size):
                    sizes = run.sizes(begin, min(begin + self._block_size, stop))
                    weight += float((1 / sizes).sum())
            tallies[name].add_equal(score, positives, negatives, weight)


class MaskCounts(NamedTuple):
    """How many masks there are, and how many of them have no defective pixel, nor a core."""

    all: int = 0
    empty: int = 0
    without_core: int = 0

    def plus(self, positive: np.ndarray, in_core: np.ndarray) -> Self:
        """The counts with one mask more."""
        return self._replace(
            all=self.all + 1,
            empty=self.empty + (not positive.any()),
            without_core=self.without_core + (not in_core.any()),
        )


class SortedRun:
    """The scores of one group and class in the file, ascending, followed by their region sizes if they are defective.

    Attributes:
        group: the group of its pixels.
        level: the class of its pixels: normal, on the rim, or in the core of a mask.
        samples: float32, every n-th of the scores, the first one included.
        last: float32 [1], the highest score.
    """

    def __init__(self, file: IO[bytes], offset: int, group: str, level: int, scores: np.ndarray, stride: int) -> None:
        """Remembers where in the file the scores begin; the caller writes them there, `stride` is n of `samples`."""
        self.group, self.level = group, level
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


@contextlib.contextmanager
def _naming_folder(folder: str) -> Iterator[None]:
    """Gives an OSError the name of the folder that holds the temporary file, which itself has none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, folder) from error
