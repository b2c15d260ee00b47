"""The page on which people look at an evaluation: <workdir>/evaluation/<step>/report/index.html.

    write_report(folder, results, rows, training_log=run_directory.read_training_log(workdir))

It is one HTML file with its script and style in it, and a folder of pictures beside it. It works from a disk, reaches
no network (its own content policy forbids it), and shows names of files and defect types as text, whatever they hold.
"""

import base64
import hashlib
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np

from draem_jax import pictures, run_directory
from draem_jax.evaluation import charts, figures, strips, templating
from draem_jax.evaluation.results import ImageRow, Results, missing_metrics, remarks

_CARD_PANELS = ('input', 'reconstruction', 'overlay', 'ground truth')
_TITLES = {
    'image_auroc': 'AUROC',
    'image_ap': 'AP',
    'image_f1_max': 'F1-max',
    'pixel_auroc': 'AUROC',
    'pixel_ap': 'AP',
    'pixel_f1_max': 'F1-max',
    'aupro': 'AUPRO',
}


def write_report(
    folder: str | os.PathLike[str],
    results: Results,
    rows: Sequence[ImageRow],
    *,
    run_name: str = '',
    training_log: Sequence[Mapping[str, Any]] = (),
    calibrated_threshold: float | None = None,
    last_step: int | None = None,
    picture_shape: tuple[int, int] = (256, 256),
) -> None:
    """Writes index.html; the pictures are expected in the folder `strips.FOLDER` beside it.

    Args:
        folder: where to; must exist.
        results: what results.json holds.
        rows: from `evaluate.predict_split`.
        run_name: by which people know the run.
        training_log: from `run_directory.read_training_log`.
        calibrated_threshold: of the image score, set without test images; None for none.
        last_step: the step at which the training ended; None while it goes on.
        picture_shape: (height, width) of one panel of the pictures.
    """
    run_directory.write_text(
        pathlib.Path(folder) / 'index.html',
        render(
            results,
            rows,
            run_name=run_name,
            training_log=training_log,
            calibrated_threshold=calibrated_threshold,
            last_step=last_step,
            picture_shape=picture_shape,
        ),
    )


def render(
    results: Results,
    rows: Sequence[ImageRow],
    *,
    run_name: str,
    training_log: Sequence[Mapping[str, Any]],
    calibrated_threshold: float | None,
    last_step: int | None,
    picture_shape: tuple[int, int],
) -> str:
    """The page as text; the arguments are those of `write_report`."""
    scores = np.array([row['score'] for row in rows], np.float64)
    labels = np.array([row['label'] for row in rows])
    axis = charts.score_axis(scores, 'image score')
    presets = threshold_presets(results, scores, labels, calibrated_threshold)
    style, script = templating.asset('report.css'), templating.asset('report.js')
    return (
        templating.environment()
        .get_template('report.html')
        .render(
            results=results,
            titles=_TITLES,
            missing={reason: map(figures.metric_name, names) for reason, names in missing_metrics(results).items()},
            remarks=[remark[0].upper() + remark[1:] for remark in remarks(results)],
            run_name=_shown(run_name),
            heading=heading(results),
            last_step=last_step,
            presets=presets,
            histogram=figures.histogram(scores, labels, axis, mark=presets[0]['value']),
            curves=figures.score_curves(results['metrics'], scores, labels),
            training=figures.training_charts(training_log, results['step']),
            per_defect_type=[(_shown(name), row) for name, row in results['per_defect_type'].items()],
            defect_types=sorted({_shown(row['defect_type']) for row in rows}),
            not_finite=int((~np.isfinite(scores)).sum()),
            first_picture=strips.picture_path(strips.FOLDER, 0).as_posix(),
            data=_script_data(rows, axis, presets, picture_shape),
            style=markupsafe.Markup(style),
            script=markupsafe.Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def heading(results: Results) -> str:
    """What was evaluated, in a few words: 'mvtec_ad, screw'."""
    dataset = results['dataset']
    return _shown(', '.join(filter(None, (dataset['name'], dataset['category']))))


def threshold_presets(
    results: Results, scores: np.ndarray, labels: np.ndarray, calibrated_threshold: float | None = None
) -> list[dict[str, Any]]:
    """The thresholds that the page offers; the first one is where its slider starts.

    Args:
        results: what results.json holds.
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        calibrated_threshold: set without test images, or None.

    Returns:
        {'value', 'name', 'explanation'} of each, and at least one.
    """
    presets = []
    if calibrated_threshold is not None:
        text = 'set beforehand on normal images (calibration.json), not on the results shown here'
        presets.append({'value': float(calibrated_threshold), 'name': 'calibrated', 'explanation': text})
    best = results['threshold']['image']
    if best is not None:
        text = 'F1-max of the test set: the threshold that is best on these very images, so it flatters'
        presets.append({'value': float(best), 'name': 'F1-max of the test set', 'explanation': text})
    if not presets:
        finite = scores[np.isfinite(scores)]
        if not finite.size:
            return [{'value': 0.5, 'name': 'one half', 'explanation': 'one half, for no image has a score'}]
        only_defects = bool(labels.all())
        value = finite.min() if only_defects else finite.max()
        name = 'lowest score' if only_defects else 'highest score'
        text = f'the {name} of all images: neither is there a calibrated threshold, nor an F1-max of the test set'
        presets.append({'value': float(value), 'name': name, 'explanation': text})
    return presets


def _script_data(
    rows: Sequence[ImageRow], axis: charts.Axis, presets: list[dict[str, Any]], picture_shape: tuple[int, int]
) -> dict[str, Any]:
    """What the page's script works with."""
    return {
        'images': [
            [_shown(row['filename']), _shown(row['defect_type']), row['label'], _finite(row['score']), row['has_mask']]
            for row in rows
        ],
        'presets': presets,
        'axis': {'kind': axis.kind, 'low': axis.low, 'high': axis.high},
        'panels': pictures.STRIP_PANELS,
        'cardPanels': [pictures.STRIP_PANELS.index(name) for name in _CARD_PANELS],
        'pictureFolder': strips.FOLDER,
        'height': picture_shape[0],
        'width': picture_shape[1],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(name: str) -> str:
    """A name from a file system as text that can be encoded; bytes that are not UTF-8 become '?'."""
    return name.encode('utf-8', 'replace').decode('utf-8')


def _hash(text: str) -> str:
    """The name by which a content security policy allows an inline script or style."""
    digest = hashlib.sha256(text.encode('utf-8')).digest()
    return f'sha256-{base64.b64encode(digest).decode()}'
