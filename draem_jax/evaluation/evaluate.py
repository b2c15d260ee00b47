"""A model on a test split: every image exactly once, in batches over all devices.

Of each image only its name and its score stay in memory. Its pixels go to a `PixelRanking`, which spools them
to disk, and what there is to see of it to a picture file.
"""

import concurrent.futures
import pathlib
import shutil
import tempfile

import cv2
import flax
import jax
import numpy as np

from draem_jax import devices, images, pictures, run_directory
from draem_jax.errors import UserError
from draem_jax.evaluation import report, results, strips
from draem_jax.evaluation.pixel_ranking import PixelRanking
from draem_jax.threads import core_count

SHEETS = ('best', 'worst', 'doubtful')


def predict_split(predict, variables, batches, pixels, *, mask_rule='half', picture_folder=None):
    """Predicts every real example of padded batches.

    Args:
        predict: from `scoring.make_predict`, mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: dicts with 'image' [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists with one entry for
            each real example ('label', 'defect_type', 'filename', 'has_mask'); rows beyond them are filler.
        pixels: `PixelRanking` that takes the maps of all images whose mask is known.
        mask_rule: as in `defective_pixels`.
        picture_folder: where the picture of every image is written (`strips`); None for no pictures.

    Returns:
        One dict for each of the N images, in their order: 'filename', 'defect_type', 'label' (0 or 1), 'score' (float),
        'has_mask' (bool).
    """
    rows, pending = [], []
    with concurrent.futures.ThreadPoolExecutor(core_count()) as pool:
        for batch in batches:
            outputs = devices.predict_batch(predict, variables, batch['image'])
            _finish(pending)  # Pictures are drawn while the next batch is predicted, and lag no further behind.
            pending = []
            for k, label in enumerate(batch['label']):
                anomaly_map, mask = outputs['map'][k], batch['mask'][k, ..., 0]
                defect_type, has_mask = batch['defect_type'][k], bool(batch['has_mask'][k])
                if picture_folder is not None:
                    path = strips.picture_path(picture_folder, len(rows))
                    shown = (batch['image'][k], outputs['reconstruction'][k], anomaly_map, mask if has_mask else None)
                    pending.append(pool.submit(strips.write, path, *shown))
                if has_mask:
                    group = results.pixel_group(label, defect_type)
                    pixels.add(anomaly_map, defective_pixels(mask, mask_rule), group=group)
                rows.append(
                    {
                        'filename': batch['filename'][k],
                        'defect_type': defect_type,
                        'label': int(label),
                        'score': float(outputs['score'][k]),
                        'has_mask': has_mask,
                    }
                )
        _finish(pending)
    return rows


def predict_share(predict, variables, batches):
    """What every process but the one that calls `predict_split` does meanwhile: its part of each prediction."""
    for batch in batches:
        devices.predict_batch(predict, variables, batch['image'])


def defective_pixels(masks, mask_rule):
    """Which pixels of resized masks count as defective.

    Args:
        masks: uint8, 0 to 255.
        mask_rule: 'half': above one half; 'full': only the full value, as in the authors' code, which after bilinear
            resizing leaves out the rims of defects.

    Returns:
        uint8 in {0, 1}, of the same shape.
    """
    return (masks > 127.5 if mask_rule == 'half' else masks == 255).astype(np.uint8)


def write_sheets(folder, rows, picture_folder, threshold, rows_per_sheet):
    """A PNG sheet for each of `SHEETS`; one that would be empty is not written.

    Args:
        folder: where to.
        rows: from `predict_split`.
        picture_folder: that `predict_split` wrote to; the sheets are put together from its pictures.
        threshold: of the image score; None where there is none, which takes the median.
        rows_per_sheet: images on each sheet.
    """
    scores = np.array([row['score'] for row in rows])
    if threshold is None:
        threshold = float(np.median(scores))
    chosen = pictures.choose_rows(scores, [row['label'] for row in rows], threshold, rows_per_sheet)
    for name, indices in chosen.items():
        shown = []
        for k in indices:
            panels = strips.read_panels(picture_folder, k)
            caption = f'{rows[k]["filename"]}  score {rows[k]["score"]:.3f}'
            shown.append((caption, panels if rows[k]['has_mask'] else panels[:-1]))
        if shown:
            images.write_png(pathlib.Path(folder) / f'{name}.png', pictures.sheet(shown, pictures.STRIP_PANELS))


def write_evaluation(
    workdir,
    folder,
    about,
    predict,
    variables,
    batches,
    *,
    mask_rule='half',
    aupro_max_fpr=0.3,
    sheet_rows=8,
    has_report=True,
):
    """Predicts all batches and writes everything to a folder, the results last.

    Until all is there, it lies in a hidden folder that goes when something fails.

    Args:
        workdir: directory of the run.
        folder: where to; made if it is missing.
        about: dict with 'step', 'dataset', 'options' and perhaps 'calibration', which the results begin with.
        predict: mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: as `predict_split` takes them.
        mask_rule: as in `defective_pixels`.
        aupro_max_fpr: the false-positive rate up to which AUPRO integrates, in (0, 1].
        sheet_rows: images on each picture sheet; 0 for no sheets.
        has_report: whether to write the report.

    Returns:
        What results.json holds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to '{folder}': {error.strerror}.") from error
    with tempfile.TemporaryDirectory(prefix='.', suffix='.partial', dir=folder) as partial:
        partial = pathlib.Path(partial)
        shown, sheets = partial / 'report', partial / 'sheets'
        picture_folder = shown / strips.FOLDER if has_report or sheet_rows else None
        for needed in (sheets, shown / strips.FOLDER):
            needed.mkdir(parents=True)
        with PixelRanking(folder=partial) as pixels:
            rows = predict_split(
                predict,
                variables,
                batches,
                pixels,
                mask_rule=mask_rule,
                picture_folder=picture_folder,
            )
            found = results.summarise(
                [row['score'] for row in rows],
                [row['label'] for row in rows],
                [row['defect_type'] for row in rows],
                pixels=pixels,
                max_fpr=aupro_max_fpr,
            )
        found = {**about, **found, 'versions': _versions()}
        if sheet_rows:
            threshold = found['threshold']['image']
            write_sheets(sheets, rows, picture_folder, threshold, sheet_rows)
        if has_report:
            report.write_report(
                shown,
                found,
                rows,
                run_name=pathlib.Path(workdir).resolve().name,
                training_log=run_directory.read_training_log(workdir),
                calibrated_threshold=about.get('calibration', {}).get('image'),
                last_step=run_directory.finished_step(workdir),
                picture_shape=strips.panel_shape(picture_folder),
            )
        # Where results.json is, all that lies beside it belongs to it.
        _replace(folder / 'results.json', None)
        # An earlier evaluation may have had pictures where this one has none.
        for name in SHEETS:
            _replace(folder / f'{name}.png', sheets / f'{name}.png')
        _replace(folder / 'report', shown if has_report else None)
        columns = ('filename', 'defect_type', 'label', 'score')
        results.write_results(folder, found, [{name: row[name] for name in columns} for row in rows])
    return found


def _replace(path, new):
    """Puts a new file or folder in the place of an old one, or of nothing; without a new one the old one goes."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if new is not None and new.exists():
        new.rename(path)


def _versions():
    """What the numbers were made with."""
    return {module.__name__: module.__version__ for module in (jax, flax, np, cv2)}


def _finish(futures):
    for future in futures:
        future.result()
