"""Looks at images with a trained run: scores, decisions, defect regions, heat maps.

    python predict.py --workdir=runs/parts photo.png new_parts/ 'archive/**/*.tif'

Arguments are files, folders (everything below them) and patterns. <workdir>/predictions, or --out, receives
predictions.csv and predictions.jsonl (a row per image), overlays/ and maps/. An image is NG where its score reaches the
run's calibrated threshold, or --threshold. Exit code 0: every image was looked at; 1: some could not be read, or none.
"""

import csv
import glob
import io
import itertools
import json
import os
import sys

import numpy as np
from absl import flags
from tqdm import tqdm

from configs import command_line
from draem_jax import detector, devices, images, pictures, regions, runs
from draem_jax.errors import UserError

MAP_FORMATS = ('png16', 'npy', 'none')
_COLUMNS = ('file', 'score', 'decision', 'regions', 'area', 'boxes', 'width', 'height', 'overlay', 'map', 'error')


def main(arguments):
    values = flags.FLAGS
    return run(
        values.workdir,
        arguments,
        step=values.step,
        out=values.out,
        threshold=values.threshold,
        pixel_threshold=values.pixel_threshold,
        tile=values.tile,
        batch_size=values.batch_size,
        maps=values.maps,
        overlays=values.overlays,
    )


def run(
    workdir,
    inputs,
    *,
    step=None,
    out=None,
    threshold=None,
    pixel_threshold=None,
    tile=0,
    batch_size=None,
    maps='png16',
    overlays=True,
):
    """Predicts every image and writes what was found.

    Args:
        workdir: directory of the run.
        inputs: files, folders and patterns.
        step, threshold, pixel_threshold, tile, batch_size: as in `detector.load`.
        out: folder of the results; `<workdir>/predictions` by default.
        maps: 'png16' (0 to 65535 for an anomaly map of 0 to 1), 'npy' (float32) or 'none'.
        overlays: whether to draw the heat map and the contours of the defects over each image.

    Returns:
        Exit code: 0, or 1 where a file could not be read.

    Raises:
        UserError: no run or no images; nothing was predicted. Or the results cannot be written.
    """
    out = os.path.join(workdir, 'predictions') if out is None else out
    runs.read_config(workdir)  # A wrong --workdir shows before a large folder is listed.
    paths = list_inputs(inputs, out)
    devices.cache_compilations()
    trained = detector.load(
        workdir, step, threshold=threshold, pixel_threshold=pixel_threshold, tile=tile, batch_size=batch_size
    )
    print(f'Step {trained.step}. {_threshold_note(trained, threshold)}')
    names = dict(zip(paths, output_names(paths), strict=True))
    # Tiles of one image fill batches by themselves; of images that large, one at a time is in memory.
    chunk_size = 1 if trained.tile else trained.batch_size
    rows = []
    try:
        with tqdm(total=len(paths), unit='image', disable=None, dynamic_ncols=True) as bar:
            for start in range(0, len(paths), chunk_size):
                chunk = paths[start : start + chunk_size]
                read = {path: _read(path) for path in chunk}
                readable = {path: image for path, image in read.items() if not isinstance(image, UserError)}
                found = dict(zip(readable, trained(list(readable.values())), strict=True))
                for path in chunk:
                    if path in found:
                        row = describe(path, found[path])
                        row |= write_pictures(out, names[path], read[path], found[path], trained, maps, overlays)
                        tqdm.write(_line(row))
                    else:
                        row = {'file': path, 'error': str(read[path])}
                        tqdm.write(_printable(f'Error: {row["error"]}'), file=sys.stderr)
                    rows.append(row)
                    bar.update()
    finally:
        if rows:
            write_tables(out, rows)  # Also of an interrupted run.
    failed = sum('error' in row for row in rows)
    counts = {'NG': 0, 'OK': 0, None: 0}
    for row in rows:
        counts[row.get('decision')] += 1
    decided = '' if trained.threshold is None else f' {counts["NG"]} NG, {counts["OK"]} OK.'
    unread = f' {failed} could not be read.' if failed else ''
    print(f'{len(rows)} image(s).{decided}{unread} Results: {_printable(str(out))}')
    return 1 if failed else 0


def list_inputs(inputs, out):
    """The image files that the arguments name, each once, in the order given.

    What an earlier call wrote below `out` is passed over in folders and patterns. A file that is named itself is taken
    whatever its name ends in, and without looking whether it is there: reading it will tell.

    Raises:
        UserError: no argument, or a folder or pattern without images.
    """
    if not inputs:
        raise UserError('Which images? Name files, folders or patterns: predict.py --workdir=RUN photo.png parts/.')
    written = os.path.join(os.path.abspath(out), '')
    paths = {}
    for argument in inputs:
        if os.path.isdir(argument):
            found = images.list_images(argument)
        elif glob.has_magic(argument) and not os.path.exists(argument):
            found = []
            for match in sorted(glob.glob(argument, recursive=True)):
                if os.path.isdir(match):
                    found += images.list_images(match, allow_none=True)
                elif images.is_image(match):
                    found.append(match)
        else:
            paths.setdefault(os.path.abspath(argument), argument)
            continue
        found = [path for path in found if not os.path.abspath(path).startswith(written)]
        if not found:
            raise UserError(f"No images ({' '.join(images.EXTENSIONS)}) found for '{argument}'.")
        for path in found:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values())


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
        runs.write_text(os.path.join(out, 'predictions.csv'), text.getvalue())
        lines = ''.join(json.dumps(row, allow_nan=False) + '\n' for row in complete)
        runs.write_text(os.path.join(out, 'predictions.jsonl'), lines)
    except OSError as error:
        raise _cannot_write(out, error) from error


def _read(path):
    """The image, or the error that says why there is none."""
    try:
        return images.read_image(path)
    except UserError as error:
        return error


def _threshold_note(trained, threshold):
    if threshold is not None:
        return f'NG from a score of {threshold:g}, as --threshold says.'
    if trained.threshold is not None:
        return f'NG from a score of {trained.threshold:.4g}. {trained.calibration_note}'
    return f'{trained.calibration_note} Scores come without a decision; --threshold=SCORE decides.'


def _line(row):
    """'NG  0.8312  2 regions, 1234 px, the largest 40 x 30 at (12, 7)  photo.png'"""
    regions_found = ''
    if row['regions'] and row['decision'] != 'OK':  # What little a good image may have stands in the tables.
        left, top, width, height = row['boxes'][0]
        plural = '' if row['regions'] == 1 else 's'
        regions_found = f'{row["regions"]} region{plural}, {row["area"]} px, the largest {width} x {height} '
        regions_found += f'at ({left}, {top})  '
    return f'{row["decision"] or "-":2}  {row["score"]:.4f}  {regions_found}{_printable(row["file"])}'


def _with_folder(out, name):
    path = os.path.join(out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _cannot_write(out, error):
    return UserError(f"Cannot write to '{out}': {error.strerror or error}. --out=FOLDER takes another one.")


def _printable(text):
    """File names can hold anything, line breaks and broken encodings included."""
    return ''.join(character if character.isprintable() else '?' for character in text)


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_integer('step', None, 'Step of the checkpoint; the newest by default.', lower_bound=0)
    flags.DEFINE_string('out', None, 'Folder of the results; <workdir>/predictions by default.')
    flags.DEFINE_float('threshold', None, 'Score from where on an image is NG, in place of the calibrated one.')
    flags.DEFINE_float('pixel_threshold', None, 'Map value from where on a pixel belongs to a defect, likewise.')
    flags.DEFINE_integer(
        'tile', 0, 'Side in pixels of overlapping tiles, each resized to the network; 0: whole images.', lower_bound=0
    )
    flags.DEFINE_integer('batch_size', None, 'Images or tiles per step, over all devices.', lower_bound=1)
    flags.DEFINE_enum('maps', 'png16', MAP_FORMATS, 'Format of the anomaly maps.')
    flags.DEFINE_bool('overlays', True, 'Draw heat map and contours over each image.')
    command_line.run(main, takes_arguments=True)
