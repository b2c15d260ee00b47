"""What predict.py writes about each image: a row in two tables, an overlay, a map, and a line on the screen."""

import csv
import io
import itertools
import json
import os
from collections.abc import Sequence
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
    try:
        if overlays:
            picture = pictures.overlay(image, detection.map)
            if pixel_threshold is not None:
                picture = pictures.contour(picture, regions.defect_mask(detection.map, pixel_threshold))
            files['overlay'] = os.path.join('overlays', f'{name}.png')
            images.write_png(_with_folder(out, files['overlay']), picture)
        if maps == 'png16':
            files['map'] = os.path.join('maps', f'{name}.png')
            levels = np.rint(65535 * detection.map.astype(np.float64)).astype(np.uint16)
            images.write_png(_with_folder(out, files['map']), levels)
        elif maps == 'npy':
            files['map'] = os.path.join('maps', f'{name}.npy')
            np.save(_with_folder(out, files['map']), detection.map)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return files


def write_tables(out: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Writes predictions.csv, where a cell holds the boxes as JSON, and predictions.jsonl."""
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, _COLUMNS, lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, 'boxes': None if row.get('boxes') is None else json.dumps(row['boxes'])})
    complete = [{column: row.get(column) for column in _COLUMNS} for row in rows]
    try:
        run_directory.write_text(os.path.join(out, 'predictions.csv'), text.getvalue())
        lines = ''.join(json.dumps(row, allow_nan=False) + '\n' for row in complete)
        run_directory.write_text(os.path.join(out, 'predictions.jsonl'), lines)
    except OSError as error:
        raise _cannot_write(out, error) from error


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


def _with_folder(out: str | os.PathLike[str], name: str) -> str:
    path = os.path.join(out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _cannot_write(out: str | os.PathLike[str], error: OSError) -> UserError:
    return UserError(f"Cannot write to '{out}': {error.strerror or error}. --out=FOLDER takes another one.")
