"""What predict.py leaves of each image: a row in two tables, an overlay, a map, and a line on the screen."""

import csv
import io
import itertools
import json
import os

import numpy as np

from draem_jax import images, pictures, run_directory
from draem_jax.detection import regions
from draem_jax.errors import UserError
from draem_jax.terminal import printable

MAP_FORMATS = ('png16', 'npy', 'none')
_COLUMNS = ('file', 'score', 'decision', 'regions', 'area', 'boxes', 'width', 'height', 'overlay', 'map', 'error')


def output_names(paths):
    """What the pictures of each image are named, without ending: no two alike, also where case is not told apart.

    The path below the deepest folder that holds all images, without its ending; where that is taken, with it.
    """
    absolute = [os.path.abspath(path) for path in paths]
    top = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names, taken = [], set()
    for path in absolute:
        whole = os.path.relpath(path, top)
        candidates = [os.path.splitext(whole)[0], whole]
        numbered = (f'{whole}_{number}' for number in itertools.count(2))
        name = next(name for name in itertools.chain(candidates, numbered) if name.lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def describe(path, found):
    """A row of the tables for a `Detection`; None for what is not known."""
    height, width = found.map.shape
    return {
        'file': path,
        'score': found.score,
        'decision': {True: 'NG', False: 'OK', None: None}[found.decision],
        'regions': None if found.boxes is None else len(found.boxes),
        'area': found.area,
        'boxes': None if found.boxes is None else [list(box) for box in found.boxes],
        'width': width,
        'height': height,
    }


def write_pictures(out, name, image, found, trained, maps, overlays):
    """Writes the overlay and the map of one image; returns their paths below `out` for the row."""
    files = {}
    try:
        if overlays:
            picture = pictures.overlay(image, found.map)
            if trained.pixel_threshold is not None:
                picture = pictures.contour(picture, regions.defect_mask(found.map, trained.pixel_threshold))
            files['overlay'] = os.path.join('overlays', f'{name}.png')
            images.write_png(_with_folder(out, files['overlay']), picture)
        if maps == 'png16':
            files['map'] = os.path.join('maps', f'{name}.png')
            levels = np.rint(65535 * found.map.astype(np.float64)).astype(np.uint16)
            images.write_png(_with_folder(out, files['map']), levels)
        elif maps == 'npy':
            files['map'] = os.path.join('maps', f'{name}.npy')
            np.save(_with_folder(out, files['map']), found.map)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return files


def write_tables(out, rows):
    """Writes predictions.csv, with boxes as JSON in their cell, and predictions.jsonl."""
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


def line(row):
    """'NG  0.8312  2 regions, 1234 px, the largest 40 x 30 at (12, 7)  photo.png'"""
    regions_found = ''
    if row['regions'] and row['decision'] != 'OK':  # What little a good image may have stands in the tables.
        left, top, width, height = row['boxes'][0]
        plural = '' if row['regions'] == 1 else 's'
        regions_found = f'{row["regions"]} region{plural}, {row["area"]} px, the largest {width} x {height} '
        regions_found += f'at ({left}, {top})  '
    return f'{row["decision"] or "-":2}  {row["score"]:.4f}  {regions_found}{printable(row["file"])}'


def _with_folder(out, name):
    path = os.path.join(out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _cannot_write(out, error):
    return UserError(f"Cannot write to '{out}': {error.strerror or error}. --out=FOLDER takes another one.")
