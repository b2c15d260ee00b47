"""Evaluates a model on a test split and writes the results: every image exactly once, in batches over all devices.

Only an image's name and score stay in memory. Its pixels go to a `PixelRanking`, which spools them to disk, and what
there is to see of it goes to a picture file (`strips`).
"""

import concurrent.futures
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import flax
import jax
import numpy as np

from draem_jax import devices, images, pictures, run_directory
from draem_jax.errors import UserError
from draem_jax.evaluation import report, results, strips, summary
from draem_jax.evaluation.pixel_ranking import PixelRanking
from draem_jax.evaluation.results import ImageRow, Results
from draem_jax.model.networks import Variables
from draem_jax.threads import core_count

SHEETS = ('best', 'worst', 'doubtful')

Batch = dict[str, Any]  # as `predict_split` takes it


def predict_split(
    predict: Callable,
    variables: Variables,
    batches: Iterable[Batch],
    pixels: PixelRanking,
    *,
    mask_rule: str = 'half',
    picture_folder: str | os.PathLike[str] | None = None,
) -> list[ImageRow]:
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
        One row for each image, in their order.
    """
    rows: list[ImageRow] = []
    pending: list[concurrent.futures.Future[None]] = []
    with concurrent.futures.ThreadPoolExecutor(core_count()) as pool:
        for batch in batches:
            outputs = devices.predict_batch(predict, variables, batch['image'])
            _finish(pending)  # Pictures are drawn while the next batch is predicted, so they lag at most one behind.
            pending = []
            for k, label in enumerate(batch['label']):
                anomaly_map, mask = outputs['map'][k], batch['mask'][k, ..., 0]
                defect_type, has_mask = batch['defect_type'][k], bool(batch['has_mask'][k])
                if picture_folder is not None:
                    path = strips.picture_path(picture_folder, len(rows))
                    shown = (batch['image'][k], outputs['reconstruction'][k], anomaly_map, mask if has_mask else None)
                    pending.append(pool.submit(strips.write, path, *shown))
                if has_mask:
                    group = summary.pixel_group(label, defect_type)
                    core = defective_pixels(mask, 'full')  # as in the authors' code, whatever the rule
                    pixels.add(anomaly_map, defective_pixels(mask, mask_rule), group, core)
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


def predict_share(predict: Callable, variables: Variables, batches: Iterable[Batch]) -> None:
    """Computes this process's part of each prediction, while another process calls `predict_split`."""
    for batch in batches:
        devices.predict_batch(predict, variables, batch['image'])


def defective_pixels(masks: np.ndarray, mask_rule: str) -> np.ndarray:
    """Which pixels of resized masks count as defective.

    Args:
        masks: uint8, 0 to 255.
        mask_rule: 'half': those above one half; 'full': only those at the full value, as in the authors' code, which
            leaves out the rims of defects after bilinear resizing.

    Returns:
        uint8 in {0, 1}, of the same shape.
    """
    return (masks > 127.5 if mask_rule == 'half' else masks == 255).astype(np.uint8)


def write_sheets(
    folder: str | os.PathLike[str],
    rows: Sequence[ImageRow],
    picture_folder: str | os.PathLike[str],
    threshold: float | None,
    rows_per_sheet: int,
) -> None:
    """Writes a PNG sheet for each of `SHEETS`, unless it would be empty.

    Args:
        folder: where to.
        rows: from `predict_split`.
        picture_folder: where `predict_split` wrote the pictures that the sheets are put together from.
        threshold: of the image score; None takes the median of the scores.
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
    workdir: str | os.PathLike[str],
    folder: pathlib.Path,
    about: dict[str, Any],
    predict: Callable,
    variables: Variables,
    batches: Iterable[Batch],
    *,
    mask_rule: str = 'half',
    aupro_max_fpr: float = 0.3,
    sheet_rows: int = 8,
    has_report: bool = True,
) -> Results:
    """Predicts all batches and writes everything to a folder, the results last.

    All files first go to a hidden folder in it, which is removed when something fails.

    Args:
        workdir: directory of the run.
        folder: where to; made if it is missing.
        about: what the results begin with: 'step', 'dataset', 'options' and perhaps 'calibration', 'training_speed'.
        predict: from `scoring.make_predict`, mapped by `devices.parallel_predict`.
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
        report_folder, sheet_folder = pathlib.Path(partial, 'report'), pathlib.Path(partial, 'sheets')
        picture_folder = report_folder / strips.FOLDER
        for needed in (sheet_folder, picture_folder):
            needed.mkdir(parents=True)
        with PixelRanking(folder=partial) as pixels:
            rows = predict_split(
                predict,
                variables,
                batches,
                pixels,
                mask_rule=mask_rule,
                picture_folder=picture_folder if has_report or sheet_rows else None,
            )
            numbers = summary.summarise(
                [row['score'] for row in rows],
                [row['label'] for row in rows],
                [row['defect_type'] for row in rows],
                pixels=pixels,
                max_fpr=aupro_max_fpr,
            )
        record = {**about, **numbers, 'versions': _versions()}
        if sheet_rows:
            write_sheets(sheet_folder, rows, picture_folder, record['threshold']['image'], sheet_rows)
        if has_report:
            report.write_report(
                report_folder,
                record,
                rows,
                run_name=pathlib.Path(workdir).resolve().name,
                training_log=run_directory.read_training_log(workdir),
                calibrated_threshold=about.get('calibration', {}).get('image'),
                last_step=run_directory.finished_step(workdir),
                picture_shape=strips.panel_shape(picture_folder),
            )
        _replace_pictures(folder, sheet_folder, report_folder if has_report else None)
        results.write_results(folder, record, rows)
    return record


def _replace_pictures(folder: pathlib.Path, sheet_folder: pathlib.Path, report_folder: pathlib.Path | None) -> None:
    """Moves sheets and report to their places, and removes those of an earlier evaluation, which may have had more."""
    # A results.json speaks for all that lies beside it, so the old one goes first.
    _replace(folder / 'results.json', None)
    for name in SHEETS:
        _replace(folder / f'{name}.png', sheet_folder / f'{name}.png')
    _replace(folder / 'report', report_folder)


def _replace(path: pathlib.Path, new: pathlib.Path | None) -> None:
    """Removes a file or folder, if there is one, and moves the new one, if there is one, to its place."""
    if path.is_dir() and path.name == 'report':
        shutil.rmtree(path)
    elif path.is_dir():  # No script of ours makes it.
        raise UserError(f"'{path}' is a folder. Expected a file, or nothing: move it away.")
    path.unlink(missing_ok=True)
    if new is not None and new.exists():
        new.rename(path)


def _versions() -> dict[str, str]:
    """The libraries that the numbers were made with."""
    return {module.__name__: module.__version__ for module in (jax, flax, np, cv2)}


def _finish(futures: Iterable[concurrent.futures.Future[None]]) -> None:
    """Waits for all of them, and raises the first error among them."""
    for future in futures:
        future.result()
