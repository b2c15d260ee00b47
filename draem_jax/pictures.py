"""Pictures for people: heat maps, overlays, contours, and labelled sheets of them.

Every picture is uint8 RGB [H, W, 3], drawn with OpenCV; `images.write_png` saves it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

Color = tuple[int, int, int]  # RGB

MIN_CELL_SIZE = 128  # Smaller pictures are enlarged to this.
STRIP_PANELS = ('input', 'reconstruction', 'overlay', 'anomaly map', 'ground truth')
_MARGIN = 12
_TEXT_SIZE = 14
_LINE_HEIGHT = 22
_BACKGROUND = (250, 250, 250)
_OUTLINE = (205, 205, 205)
_TITLE_COLOR = (20, 20, 20)
_CAPTION_COLOR = (85, 85, 85)
_NOT_A_NUMBER = (128, 128, 128)


def heat(anomaly_map: ArrayLike) -> np.ndarray:
    """An anomaly map in colours that grow steadily brighter: black, purple, red, yellow.

    Args:
        anomaly_map: [H, W] in [0, 1]; values beyond are clipped, NaN is drawn in grey.

    Returns:
        uint8 RGB [H, W, 3].
    """
    values = np.asarray(anomaly_map, np.float32)
    levels = np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    colors[np.isnan(values)] = _NOT_A_NUMBER
    return colors


def overlay(image: ArrayLike, anomaly_map: ArrayLike, alpha: float = 0.7) -> np.ndarray:
    """An image with its heat map over it; normal parts show through unchanged.

    Args:
        image: uint8 RGB [H, W, 3], or anything `sheet` takes.
        anomaly_map: [H, W] in [0, 1].
        alpha: how much the heat map covers where the map is 1.

    Returns:
        uint8 RGB [H, W, 3].
    """
    # The square root keeps weak spots visible.
    opacity = alpha * np.sqrt(np.clip(np.nan_to_num(np.asarray(anomaly_map, np.float32)), 0, 1))[..., None]
    return np.rint((1 - opacity) * _rgb(image) + opacity * heat(anomaly_map)).astype(np.uint8)


def contour(image: ArrayLike, mask: ArrayLike, color: Color = (255, 40, 40)) -> np.ndarray:
    """An image with a line around every region of a mask.

    Args:
        image: uint8 RGB [H, W, 3], or anything `sheet` takes.
        mask: [H, W], nonzero inside.
        color: RGB of the line.

    Returns:
        uint8 RGB [H, W, 3].
    """
    picture = _rgb(image).copy()
    inside = np.ascontiguousarray(np.asarray(mask) != 0).astype(np.uint8)
    lines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(picture.shape[:2]) / 160))
    cv2.drawContours(picture, lines, -1, color, thickness, cv2.LINE_8)
    return picture


def sheet(
    rows: Sequence[tuple[str, Sequence[ArrayLike | None]]], column_titles: Sequence[str], cell_size: int = 256
) -> np.ndarray:
    """A contact sheet: pictures in rows, a title above each column, a caption above each row.

    Args:
        rows: (caption, images) of each row. An image is [H, W, 3], [H, W, 1] or [H, W]; uint8, bool, or float
            in [0, 1]; None leaves its cell empty. An empty caption takes no room; a long one loses its middle.
        column_titles: one for each column.
        cell_size: the longer side of every picture, in pixels; at least `MIN_CELL_SIZE`.

    Returns:
        uint8 RGB [height, width, 3].

    Raises:
        ValueError: there are no rows, or a row has more images than there are columns.
    """
    if not rows:
        raise ValueError('A sheet needs at least one row.')
    cell_size = max(cell_size, MIN_CELL_SIZE)
    captions = [caption for caption, _ in rows]
    cells = [[None if image is None else _fit(_rgb(image), cell_size) for image in images] for _, images in rows]
    for row in cells:
        if len(row) > len(column_titles):
            raise ValueError(f'A row has {len(row)} images for {len(column_titles)} columns: {list(column_titles)}.')
        row += [None] * (len(column_titles) - len(row))
    widths = [max(_length(column, 1), MIN_CELL_SIZE) for column in zip(*cells, strict=True)]
    heights = [max(_length(row, 0), _LINE_HEIGHT) for row in cells]
    width = sum(widths) + _MARGIN * (len(widths) + 1)
    height = _LINE_HEIGHT + 2 * _MARGIN + sum(heights)
    height += sum(_MARGIN + (_LINE_HEIGHT if caption else 0) for caption in captions)

    canvas: np.ndarray = np.full((height, width, 3), _BACKGROUND, np.uint8)
    lefts = [_MARGIN + sum(widths[:column]) + _MARGIN * column for column in range(len(widths))]
    for left, title, room in zip(lefts, column_titles, widths, strict=True):
        _write(canvas, title, left, _MARGIN, room, _TITLE_COLOR, weight=600)
    top = _MARGIN + _LINE_HEIGHT + _MARGIN // 2
    for caption, row, row_height in zip(captions, cells, heights, strict=True):
        if caption:
            _write(canvas, caption, _MARGIN, top, width - 2 * _MARGIN, _CAPTION_COLOR, weight=400)
            top += _LINE_HEIGHT
        for left, picture in zip(lefts, row, strict=True):
            if picture is not None:
                bottom, right = top + picture.shape[0], left + picture.shape[1]
                cv2.rectangle(canvas, (left - 1, top - 1), (right, bottom), _OUTLINE)
                canvas[top:bottom, left:right] = picture
        top += row_height + _MARGIN
    return canvas


def strip(
    image: np.ndarray,
    reconstruction: np.ndarray,
    anomaly_map: np.ndarray,
    mask: np.ndarray | None,
    max_size: int = 512,
) -> np.ndarray:
    """All pictures of one test image side by side, in the order of `STRIP_PANELS`.

    Args:
        image: uint8 RGB [H, W, 3].
        reconstruction: uint8 RGB [H, W, 3].
        anomaly_map: [H, W] in [0, 1].
        mask: uint8 [H, W] from 0 to 255, or None if it is unknown, which leaves its panel grey.
        max_size: panels whose longer side exceeds this are scaled down to it.

    Returns:
        uint8 RGB [h, 5 w, 3].
    """
    colors = heat(anomaly_map)
    mask = np.full(image.shape[:2], 128, np.uint8) if mask is None else mask
    panels = [image, reconstruction, overlay(image, anomaly_map), colors, mask]
    scale = min(1, max_size / max(image.shape[:2]))
    return np.concatenate([_fit(_rgb(panel), round(scale * max(image.shape[:2]))) for panel in panels], axis=1)


def cut_strip(picture: np.ndarray) -> list[np.ndarray]:
    """The panels of a strip, a list of uint8 RGB [h, w, 3]."""
    return np.split(picture, len(STRIP_PANELS), axis=1)


def choose_rows(scores: ArrayLike, labels: ArrayLike, threshold: float, count: int) -> dict[str, list[int]]:
    """The images worth looking at.

    Args:
        scores: [N] image scores.
        labels: [N], 1 on defective images and 0 on normal ones.
        threshold: an image counts as defective where score >= threshold.
        count: at most this many of each kind.

    Returns:
        dict of lists of indices; no index is in two of them:
            worst: those decided wrongly, the most confident first; before them those whose score is not a number;
            best: half defective images with the highest scores, half normal ones with the lowest;
            doubtful: those nearest to the threshold.
    """
    scores, is_defective = np.asarray(scores, np.float64), np.asarray(labels) != 0
    finite = np.isfinite(scores)
    distance = np.where(finite, np.abs(scores - threshold), np.inf)
    # Scores crowd near zero, so each side of the threshold is measured by its own reach.
    for side in (scores >= threshold, scores < threshold):
        reach = distance[finite & side].max(initial=0)
        distance[finite & side] /= reach if reach > 0 else 1
    is_right = finite & ((scores >= threshold) == is_defective)

    wrong = np.flatnonzero(~is_right)
    worst = wrong[np.argsort(-distance[wrong], kind='stable')][:count]
    right = np.flatnonzero(is_right)
    defective, normal = right[is_defective[right]], right[~is_defective[right]]
    defective = defective[np.argsort(-scores[defective], kind='stable')]
    normal = normal[np.argsort(scores[normal], kind='stable')]
    # Half of each, or more of one if there are not enough of the other.
    half = max(min(len(defective), (count + 1) // 2), count - len(normal))
    best = np.concatenate([defective[:half], normal[: max(count - half, 0)]])
    rest = np.setdiff1d(np.arange(len(scores)), np.concatenate([best, worst]))
    doubtful = rest[np.argsort(distance[rest], kind='stable')][:count]
    return {'best': best.tolist(), 'worst': worst.tolist(), 'doubtful': doubtful.tolist()}


def _rgb(image: ArrayLike) -> np.ndarray:
    """Any image that `sheet` takes as uint8 [H, W, 3]."""
    image = np.asarray(image)
    if image.dtype == bool:
        image = 255 * image.astype(np.uint8)
    elif image.dtype != np.uint8:
        image = np.rint(255 * np.clip(np.nan_to_num(image.astype(np.float32)), 0, 1)).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _fit(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture scaled so that its longer side is `size`."""
    scale = size / max(picture.shape[:2])
    if scale == 1:
        return picture
    # Pixels that are enlarged a lot stay squares.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC if scale < 2 else cv2.INTER_NEAREST
    height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
    return cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method)


def _length(pictures: Sequence[np.ndarray | None], axis: int) -> int:
    return max((picture.shape[axis] for picture in pictures if picture is not None), default=0)


def _write(canvas: np.ndarray, text: str, left: int, top: int, room: int, color: Color, weight: int) -> None:
    """Draws one line of text; if it is wider than `room`, its middle is left out."""
    font = cv2.FontFace('sans')
    # A file name can hold anything, line breaks and broken encodings included.
    text = ''.join(character if character.isprintable() else ' ' for character in text)
    text = text.encode('utf-8', 'replace').decode('utf-8')
    shown, kept = text, len(text)
    while kept > 2 and _text_width(shown, font, weight) > room:
        kept -= 1
        shown = f'{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}'
    cv2.putText(canvas, shown, (left, top + _TEXT_SIZE), color, font, _TEXT_SIZE, weight)


def _text_width(text: str, font: cv2.FontFace, weight: int) -> int:
    _, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), font, _TEXT_SIZE, weight)
    return width
