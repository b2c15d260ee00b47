"""Sets the thresholds of a trained run from a folder of good images: <workdir>/calibration.json.

    python tools/calibrate.py --workdir=runs/parts --normals=good_parts --target_fpr=0.01

The images have to be good ones that the run has not been trained on: images that it has seen get lower scores, and a
threshold from those would reject too many. A false-positive rate r takes at least 1 / r - 1 images.
"""

import functools
import os
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))  # Python looks only in tools/.

from absl import flags
from tqdm import tqdm

from commands import command_line
from configs import default
from draem_jax import devices, images, run_directory, storage
from draem_jax.detection import calibration, detector
from draem_jax.errors import UserError


def main() -> None:
    values = flags.FLAGS
    calibrate(
        values.workdir,
        values.normals,
        step=values.step,
        target_fpr=values.target_fpr,
        pixel_target_fpr=values.pixel_target_fpr,
        tile=values.tile,
        batch_size=values.batch_size,
    )


def calibrate(
    workdir: str,
    normals: str,
    *,
    step: int | None = None,
    target_fpr: float | None = None,
    pixel_target_fpr: float | None = None,
    tile: int = 0,
    batch_size: int | None = None,
) -> calibration.Calibration:
    """Calibrates a run.

    Args:
        workdir: directory of the run.
        normals: folder of good images, however nested.
        step: of the checkpoint; the newest by default. predict.py uses the calibration for this one alone.
        target_fpr, pixel_target_fpr: wanted false-positive rates of images and pixels, in (0, 1); those of the run's
            config by default.
        tile, batch_size: as in `detector.load`.

    Returns:
        The calibration, as from `calibration.calibrate`.

    Raises:
        UserError: there is no run or no image, an image cannot be read, a rate is not in (0, 1), or the run cannot be
            written to. Nothing is written.
    """
    detector.check_arguments(step=step, tile=tile, batch_size=batch_size)
    workdir, normals = storage.local_path(workdir, '--workdir'), storage.local_path(normals, '--normals')
    config = run_directory.read_config(workdir)
    usual = {**default.get_config().evaluation.to_dict(), **config.get('evaluation', {})}
    rates = {
        'target_fpr': usual['target_fpr'] if target_fpr is None else target_fpr,
        'pixel_target_fpr': usual['pixel_target_fpr'] if pixel_target_fpr is None else pixel_target_fpr,
    }
    calibration.check_rates(**rates)
    if not os.access(workdir, os.W_OK):  # Before all images are looked at in vain.
        raise UserError(f"Cannot write '{os.path.join(workdir, 'calibration.json')}': '{workdir}' is read-only.")
    paths = images.list_images(normals)
    if trained_on(config.get('dataset', {}), normals):
        print(
            f"Warning: '{normals}' lies in the data set that the run was trained on. Scores of images that it has seen "
            'are too low, and a threshold from them rejects too many good parts.',
            file=sys.stderr,
        )
    devices.cache_compilations()
    trained = detector.load(workdir, step, tile=tile, batch_size=batch_size, calibrated=False)
    progress = tqdm(paths, unit='image', leave=False, disable=None, dynamic_ncols=True)
    source = f"{len(paths)} images in '{normals}'"
    read = functools.partial(images.read_image, bit_depth=trained.bit_depth)
    calibrated = calibration.calibrate_run(workdir, trained, map(read, progress), source=source, **rates)
    image, pixel = calibrated['image'], calibrated['pixel']
    print(f'Step {trained.step}: images from {image["threshold"]:.4g}, pixels from {pixel["threshold"]:.4g}.')
    print(calibration.describe(calibrated))
    return calibrated


def trained_on(dataset: dict[str, Any], folder: str) -> bool:
    """Whether a folder lies in the run's data set, outside its test split."""
    root, category = dataset.get('root'), dataset.get('category')
    if not root or not isinstance(root, str) or not isinstance(category, str):
        return False
    root = os.path.realpath(os.path.join(os.path.expanduser(root), category))
    below = os.path.relpath(os.path.realpath(folder), root).split(os.sep)
    return below[0] not in ('..', 'test')


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'Directory of the run.', required=True)
    flags.DEFINE_string('normals', None, 'Folder of good images that were not trained on.', required=True)
    flags.DEFINE_integer('step', None, 'Step of the checkpoint; the newest by default.', lower_bound=0)
    flags.DEFINE_float('target_fpr', None, 'Wanted false-positive rate of images; by default that of the config.')
    flags.DEFINE_float('pixel_target_fpr', None, 'Wanted false-positive rate of pixels; by default that of the config.')
    flags.DEFINE_integer('tile', 0, 'As predict.py will be called with.', lower_bound=0)
    flags.DEFINE_integer('batch_size', None, 'Images or tiles per step, over all devices.', lower_bound=1)
    command_line.main(main)
