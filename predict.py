"""Looks at images with a trained run: scores, decisions, defect regions, heat maps.

    python predict.py --workdir=runs/parts photo.png new_parts/ 'archive/**/*.tif'

Arguments are files, folders (everything below them) and patterns. <workdir>/predictions, or --out, receives
predictions.csv and predictions.jsonl (a row per image, as soon as it is looked at), overlays/ and maps/. An image is NG
if its score reaches the run's calibrated threshold, or --threshold.

Exit code 0: every image was looked at; 1: some were not; 42: SIGTERM or SIGINT (Ctrl-C) came, the image at hand was
finished, and the tables have a row for each image until then. A pipe that is closed, as by `| head`, stops nothing.
"""

import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags
from tqdm import tqdm

from commands import command_line
from draem_jax import devices, images, memory, preemption, run_directory, storage
from draem_jax.detection import detector, predictions
from draem_jax.detection.inputs import list_inputs
from draem_jax.errors import Preempted, UserError
from draem_jax.terminal import printable


def main(arguments: list[str]) -> int:
    values = flags.FLAGS
    with memory.explaining_full_memory('A smaller --batch_size takes less of it.'):
        return predict(
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


def predict(
    workdir: str,
    inputs: Sequence[str],
    *,
    step: int | None = None,
    out: str | None = None,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    tile: int = 0,
    batch_size: int | None = None,
    maps: str = 'png16',
    overlays: bool = True,
) -> int:
    """Predicts every image and writes the results.

    Args:
        workdir: directory of the run.
        inputs: files, folders and patterns.
        step, threshold, pixel_threshold, tile, batch_size: as in `detector.load`.
        out: folder of the results; `<workdir>/predictions` by default.
        maps: 'png16' (0 to 65535 for an anomaly map of 0 to 1), 'npy' (float32) or 'none'.
        overlays: whether to draw the heat map and the contours of the defects over each image.

    Returns:
        Exit code: 0, or 1 if a file could not be read.

    Raises:
        UserError: there is no run or no image, or an argument is out of range, and nothing was predicted; or the
            results cannot be written.
        Preempted: the process was asked to stop; the rows of the images until then are in the tables.
    """
    detector.check_arguments(
        step=step, threshold=threshold, pixel_threshold=pixel_threshold, tile=tile, batch_size=batch_size
    )
    workdir = storage.local_path(workdir, '--workdir')
    out = storage.local_path(out, '--out') if out else os.path.join(workdir, 'predictions')
    run_directory.read_config(workdir)  # A wrong --workdir shows before a large folder is listed.
    paths = list_inputs(inputs, out)
    devices.cache_compilations()
    trained = detector.load(
        workdir, step, threshold=threshold, pixel_threshold=pixel_threshold, tile=tile, batch_size=batch_size
    )
    print(f'Step {trained.step}. {_threshold_note(trained, threshold)}')
    rows: list[predictions.Row] = []
    with (
        preemption.watch() as interruption,
        predictions.Tables(out) as tables,
        tqdm(total=len(paths), unit='image', disable=None, dynamic_ncols=True) as bar,
    ):
        for row in _predict_each(trained, paths, out, maps, overlays):
            tables.add(row)
            rows.append(row)
            bar.update()
            if interruption and len(rows) < len(paths):
                raise Preempted(
                    f'Stopped by {interruption.signal} after {len(rows)} of {len(paths)} images, whose rows are in '
                    f'{printable(str(out))}. The same command looks at all of them, from the first one.'
                )
    failed = sum('error' in row for row in rows)
    counts: dict[str | None, int] = {'NG': 0, 'OK': 0, None: 0}
    for row in rows:
        counts[row.get('decision')] += 1
    decided = '' if trained.threshold is None else f' {counts["NG"]} NG, {counts["OK"]} OK.'
    unread = f' {failed} could not be read.' if failed else ''
    print(f'{len(rows)} image(s).{decided}{unread} Results: {printable(str(out))}')
    return 1 if failed else 0


def _predict_each(
    trained: detector.Detector, paths: Sequence[str], out: str, maps: str, overlays: bool
) -> Iterator[predictions.Row]:
    """Writes the pictures of each image, prints its line, and yields its row."""
    names = dict(zip(paths, predictions.output_names(paths), strict=True))
    # The tiles of one image fill batches by themselves, and images that large should be in memory one at a time.
    chunk_size = 1 if trained.tile else trained.batch_size
    for start in range(0, len(paths), chunk_size):
        read = {path: _read(path, trained.bit_depth) for path in paths[start : start + chunk_size]}
        readable = {path: image for path, image in read.items() if not isinstance(image, UserError)}
        detections = dict(zip(readable, trained(list(readable.values())), strict=True))
        for path, image in read.items():
            if isinstance(image, UserError):
                row = {'file': path, 'error': str(image)}
                tqdm.write(printable(f'Error: {row["error"]}'), file=sys.stderr)
            else:
                row = predictions.describe(path, detections[path])
                row |= predictions.write_pictures(
                    out,
                    names[path],
                    image,
                    detections[path],
                    pixel_threshold=trained.pixel_threshold,
                    maps=maps,
                    overlays=overlays,
                )
                tqdm.write(predictions.line(row))
            yield row


def _read(path: str, bit_depth: int) -> np.ndarray | UserError:
    """The image, or the error that says why it cannot be read."""
    try:
        return images.read_image(path, bit_depth=bit_depth)
    except UserError as error:
        return error


def _threshold_note(trained: detector.Detector, threshold: float | None) -> str:
    if threshold is not None:
        return f'NG from a score of {threshold:g}, as --threshold says.'
    if trained.threshold is not None:
        return f'NG from a score of {trained.threshold:.4g}. {trained.calibration_note}'
    return f'{trained.calibration_note} Scores come without a decision; --threshold=SCORE decides.'


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_integer('step', None, 'Step of the checkpoint; the newest by default.', lower_bound=0)
    flags.DEFINE_string('out', None, 'Folder of the results; <workdir>/predictions by default.')
    flags.DEFINE_float(
        'threshold', None, 'Score in [0, 1] from where on an image is NG, in place of the calibrated one.'
    )
    flags.DEFINE_float('pixel_threshold', None, 'Map value in [0, 1] from where on a pixel is defective, likewise.')
    flags.DEFINE_integer(
        'tile', 0, 'Side in pixels of overlapping tiles, each resized to the network; 0: whole images.', lower_bound=0
    )
    flags.DEFINE_integer('batch_size', None, 'Images or tiles per step, over all devices.', lower_bound=1)
    flags.DEFINE_enum('maps', 'png16', predictions.MAP_FORMATS, 'Format of the anomaly maps.')
    flags.DEFINE_bool('overlays', True, 'Draw heat map and contours over each image.')
    command_line.main(main, takes_arguments=True)
