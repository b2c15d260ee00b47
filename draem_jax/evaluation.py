"""A model on a test split: every image exactly once, in batches over all devices.

Of each image only its name and its score stay in memory. Its pixels go to a `metrics.PixelRanking`, which spools them
to disk, and what there is to see of it to a picture file.
"""

import concurrent.futures
import os
import pathlib

import numpy as np

from draem_jax import devices, images, pictures, results

SHEETS = ('best', 'worst', 'doubtful')


def run(predict, variables, batches, pixels, *, mask_rule='half', picture_folder=None):
    """Predicts every real example of padded batches.

    Args:
        predict: from `inference.make_predict`, mapped by `devices.parallel_predict`.
        variables: of the model.
        batches: dicts with 'image' [B, H, W, 3], 'mask' uint8 [B, H, W, 1] from 0 to 255, and lists with one entry for
            each real example ('label', 'defect_type', 'filename', 'has_mask'); rows beyond them are filler.
        pixels: `metrics.PixelRanking` that takes the maps of all images whose mask is known.
        mask_rule: as in `defective_pixels`.
        picture_folder: where `picture_file` of every image is written; None for no pictures.

    Returns:
        One dict for each of the N images, in their order: 'filename', 'defect_type', 'label' (0 or 1), 'score' (float),
        'has_mask' (bool).
    """
    rows, pending = [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for batch in batches:
            outputs = devices.predict_batch(predict, variables, batch['image'])
            _finish(pending)  # Pictures are drawn while the next batch is predicted, and lag no further behind.
            pending = []
            for k, label in enumerate(batch['label']):
                anomaly_map, mask = outputs['map'][k], batch['mask'][k, ..., 0]
                defect_type, has_mask = batch['defect_type'][k], bool(batch['has_mask'][k])
                if picture_folder is not None:
                    path = pathlib.Path(picture_folder) / picture_file(len(rows))
                    shown = (batch['image'][k], outputs['reconstruction'][k], anomaly_map, mask if has_mask else None)
                    pending.append(pool.submit(_write_strip, path, *shown))
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


def help_predict(predict, variables, batches):
    """What every process but the one that calls `run` does meanwhile: its part of each prediction."""
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


def picture_file(index):
    """The name of the picture of the image at a place in the test split. File names of the user's never name a file
    of ours: they could hold anything.
    """
    return f'{index:05}.jpg'


def picture_shape(picture_folder):
    """(height, width) of one panel of the pictures that `run` wrote."""
    height, width, _ = pictures.cut_strip(images.read_image(pathlib.Path(picture_folder) / picture_file(0)))[0].shape
    return height, width


def write_sheets(folder, rows, picture_folder, threshold, rows_per_sheet):
    """A PNG sheet for each of `SHEETS`; one that would be empty is not written.

    Args:
        folder: where to.
        rows: from `run`.
        picture_folder: that `run` wrote to; the sheets are put together from its pictures.
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
            panels = pictures.cut_strip(images.read_image(pathlib.Path(picture_folder) / picture_file(k)))
            caption = f'{rows[k]["filename"]}  score {rows[k]["score"]:.3f}'
            shown.append((caption, panels if rows[k]['has_mask'] else panels[:-1]))
        if shown:
            images.write_png(pathlib.Path(folder) / f'{name}.png', pictures.sheet(shown, pictures.STRIP_PANELS))


def _write_strip(path, *shown):
    images.write_jpeg(path, pictures.strip(*shown))


def _finish(futures):
    for future in futures:
        future.result()
