"""What predict.py writes about each image: a row in two tables, an overlay, a map, and a line on the screen."""

import csv
import errno
import functools
import io
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from draem_jax import images, pictures, run_directory
from draem_jax.detection import regions
from draem_jax.detection.detector import Detection
from draem_jax.errors import UserError
from draem_jax.terminal import printable

Row = dict[str, Any]  # {column: value}

MAP_FORMATS = ('png16', 'npy', 'none')
_COLUMNS = ('file', 'score', 'decision', 'regions', 'area', 'boxes', 'width', 'height', 'overlay', 'map', 'error')


def output_names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for the pictures of each image, without ending; all differ, even where case does not count.

    It is the path below the deepest folder that holds all images, without its ending, or with it if that is taken.
    """
    absolute = [os.path.abspath(path) for path in paths]
    top = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names: list[str] = []
    taken: set[str] = set()
    for path in absolute:
        whole = os.path.relpath(path, top)
        candidates = [os.path.splitext(whole)[0], whole]
        numbered = (f'{whole}_{number}' for number in itertools.count(2))
        name = next(name for name in itertools.chain(candidates, numbered) if name.lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def describe(path: str, detection: Detection) -> Row:
    """A detection as a row of the tables; what is not known is None."""
    height, width = detection.map.shape
    return {
        'file': path,
        'score': detection.score,
        'decision': {True: 'NG', False: 'OK', None: None}[detection.decision],
        'regions': None if detection.boxes is None else len(detection.boxes),
        'area': detection.area,
        'boxes': None if detection.boxes is None else [list(box) for box in detection.boxes],
        'width': width,
        'height': height,
    }


def write_pictures(
    out: str | os.PathLike[str],
    name: str,
    image: np.ndarray,
    detection: Detection,
    *,
    pixel_threshold: float | None,
    maps: str,
    overlays: bool,
) -> Row:
    """Writes the overlay and the map of one image.

    Args:
        out: folder of the results.
        name: of both files, below their folders, without ending.
        image: uint8 RGB [H, W, 3].
        detection: of the image.
        pixel_threshold: the overlay has contours where the map reaches it; None for none.
        maps: one of `MAP_FORMATS`.
        overlays: whether to write the overlay.

    Returns:
        The paths of the files below `out`, to be added to the row.
    """
    files = {}
    if overlays:
        picture = pictures.overlay(image, detection.map)
        if pixel_threshold is not None:
            picture = pictures.contour(picture, regions.defect_mask(detection.map, pixel_threshold))
        files['overlay'] = os.path.join('overlays', f'{name}.png')
        _write(out, files['overlay'], functools.partial(images.write_png, image=picture))
    if maps == 'png16':
        files['map'] = os.path.join('maps', f'{name}.png')
        levels = np.rint(65535 * detection.map.astype(np.float64)).astype(np.uint16)
        _write(out, files['map'], functools.partial(images.write_png, image=levels))
    elif maps == 'npy':
        content = io.BytesIO()
        np.save(content, detection.map)  # To a file it would not say that a disk is full.
        files['map'] = os.path.join('maps', f'{name}.npy')
        _write(out, files['map'], lambda path: pathlib.Path(path).write_bytes(content.getvalue()))
    return files


class Tables:
    """predictions.csv, where a cell holds the boxes as JSON, and predictions.jsonl; used in a `with` block.

    At first both are replaced by empty ones, for an older row would speak of a picture that is about to be replaced.
    Each row is on disk when `add` returns, so whatever ends the process, the tables tell of what has been done; and the
    folder can be known from the start as one that holds results.

    Args:
        out: folder of the results; it is made where it is missing.

    Raises:
        UserError: the tables cannot be written. There are whole rows in them, the same in both.
    """

    def __init__(self, out: str | os.PathLike[str]):
        self._out = out
        self._files: list[io.FileIO] = []

    def __enter__(self) -> 'Tables':
        try:
            for name, text in (('predictions.jsonl', ''), ('predictions.csv', _csv_row(None))):
                path = os.path.join(self._out, name)
                run_directory.write_text(path, text)
                self._files.append(io.FileIO(path, 'a'))
        except OSError as error:
            self.__exit__()
            raise _cannot_write(self._out, error) from error
        return self

    def add(self, row: Row) -> None:
        """Writes one row to both; what `row` does not have is empty, and null."""
        as_json = json.dumps({column: row.get(column) for column in _COLUMNS}, allow_nan=False) + '\n'
        ends = [file.tell() for file in self._files]
        try:
            for file, text in zip(self._files, (as_json, _csv_row(row)), strict=True):
                data = text.encode('utf-8', 'surrogateescape')  # Names in other encodings come out byte for byte.
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            for file, end in zip(self._files, ends, strict=True):
                file.truncate(end)
            raise _cannot_write(self._out, error) from error

    def __exit__(self, *exception: object) -> None:
        for file in self._files:
            file.close()


def line(row: Row) -> str:
    """A row as a line for the screen, such as

    NG  0.8312  2 regions, 1234 px, the largest 40 x 30 at (12, 7)  photo.png
    """
    defects = ''
    if row['regions'] and row['decision'] != 'OK':  # The small regions of a good image stand in the tables only.
        left, top, width, height = row['boxes'][0]
        plural = '' if row['regions'] == 1 else 's'
        defects = f'{row["regions"]} region{plural}, {row["area"]} px, the largest {width} x {height} '
        defects += f'at ({left}, {top})  '
    return f'{row["decision"] or "-":2}  {row["score"]:.4f}  {defects}{printable(row["file"])}'


def _csv_row(row: Row | None) -> str:
    """A line of predictions.csv; the first one for None."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, _COLUMNS, lineterminator='\n')
    if row is None:
        writer.writeheader()
    else:
        writer.writerow({**row, 'boxes': None if row.get('boxes') is None else json.dumps(row['boxes'])})
    return text.getvalue()


def _write(out: str | os.PathLike[str], name: str, write: Callable[[str], object]) -> None:
    """Has `write` write the file `name` below `out`, or leaves none where the disk is full."""
    path = os.path.join(out, name)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            pathlib.Path(path).unlink(missing_ok=True)  # Half of a picture, or nothing.
        raise _cannot_write(out, error) from error


def _cannot_write(out: str | os.PathLike[str], error: OSError) -> UserError:
    return UserError(f"Cannot write to '{out}': {error.strerror or error}. --out=FOLDER takes another one.")
