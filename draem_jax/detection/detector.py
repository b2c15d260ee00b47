"""A trained run as a function of images: scores, maps, decisions and defect regions. It needs no TensorFlow."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import reprlib
from collections.abc import Iterable, Iterator
from typing import Any, overload

import flax.linen as nn
import numpy as np

from draem_jax import checkpoints, devices, images, storage
from draem_jax.detection import calibration, opening, regions, run_settings, tiling
from draem_jax.detection.opening import Image
from draem_jax.errors import UserError
from draem_jax.model import networks, scoring

_NUMBERS = (int, float, np.integer, np.floating)


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """What a detector says of one image.

    Attributes:
        score: in [0, 1]; the higher, the more anomalous.
        map: float32 [H, W] in [0, 1] at the image's own resolution: the probability of an anomaly at each pixel.
        decision: True where the image is defective (score >= threshold), False where it is good, None where no
            threshold is known.
        boxes: (left, top, width, height) in pixels of each connected region where the map reaches the pixel threshold,
            the largest region first; None where no pixel threshold is known. They do not depend on the decision: a
            good image may have small ones.
        area: how many pixels all regions have together; None where no pixel threshold is known.
    """

    score: float
    map: np.ndarray
    decision: bool | None
    boxes: tuple[regions.Box, ...] | None
    area: int | None


def load(
    run: str | os.PathLike[str],
    step: int | None = None,
    *,
    threshold: float | None = None,
    pixel_threshold: float | None = None,
    tile: int = 0,
    batch_size: int | None = None,
    calibrated: bool = True,
) -> 'Detector':
    """Opens a trained run to look at images with it.

    >>> import draem_jax
    >>> detector = draem_jax.load('runs/parts')
    >>> detection = detector('photo.png')
    >>> detection.map.shape, detection.map.dtype
    ((1500, 2000), dtype('float32'))
    >>> 0 <= detection.score <= 1
    True
    >>> strict = draem_jax.load('runs/parts', threshold=0.0, pixel_threshold=0.0)
    >>> strict('photo.png').decision, strict('photo.png').boxes
    (True, ((0, 0, 2000, 1500),))
    >>> [detection.decision for detection in strict(['photo.png', 'photo.png'])]
    [True, True]

    The program is compiled while the checkpoint is read. A call of `draem_jax.devices.cache_compilations()` before it
    keeps the compiled program on disk for the next process.

    Args:
        run: directory that train.py wrote to.
        step: of the checkpoint; the newest by default.
        threshold: of the image score, in [0, 1], in place of the calibrated one.
        pixel_threshold: of the map, in [0, 1], in place of the calibrated one.
        tile: 0 resizes the whole image to the network's size, as in training and evaluation. Otherwise the image is cut
            into overlapping square tiles of that many of its pixels, and each is resized to the network's size: for
            networks trained on images of that scale. Where the network is not square, `tile` is the tile's height.
        batch_size: images (or tiles) per step over all devices, rounded up to a multiple of the devices. By default one
            per device on a CPU, where more at once gains nothing, and elsewhere the `evaluation.batch_size` of the run.
        calibrated: False leaves calibration.json unread, because it is about to be written anew: it may be damaged.

    Raises:
        UserError: an argument is out of range, and nothing is read; there is no run, no checkpoint or not this step; or
            a file of the run is damaged.
    """
    check_arguments(step=step, threshold=threshold, pixel_threshold=pixel_threshold, tile=tile, batch_size=batch_size)
    if not isinstance(run, str | os.PathLike):
        raise UserError(f'run={reprlib.repr(run)}: expected the directory of a run, a path.')
    run = storage.local_path(os.fsdecode(run), 'run')
    settings = run_settings.read(run)
    model, image_size = networks.make_model(**settings.model), settings.image_size
    # Now, because what is missing or damaged should show before the program is compiled.
    if calibrated:
        calibration.read(run)
    checkpoints.check_step(run, step)
    if batch_size is None:
        batch_size = 1 if devices.on_cpu() else settings.batch_size
    batch_size = -(-batch_size // devices.count()) * devices.count()
    template = _template(model, image_size)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        restoring = thread.submit(checkpoints.restore_variables, run, template, step)
        score = settings.score_window, settings.score_top
        predict = _predictor(model, *score, image_size, batch_size)  # Meanwhile: it takes as long.
        step, variables = restoring.result()
    detector = Detector(
        predict,
        devices.replicate(variables),
        step=step,
        image_size=image_size,
        antialias=settings.antialias,
        dtype=np.dtype(model.dtype).name,
        bit_depth=settings.bit_depth,
        score_window=settings.score_window,
        score_top=settings.score_top,
        anomaly_map=settings.model['anomaly_map'],
        tile=int(tile),
        batch_size=batch_size,
        threshold=None if threshold is None else float(threshold),
        pixel_threshold=None if pixel_threshold is None else float(pixel_threshold),
        calibration_note='Uncalibrated: calibration.json was not read.',
    )
    if not calibrated:
        return detector
    found, note = calibration.find(run, **detector.settings())
    levels: dict[str, Any] = {}
    if found is not None and threshold is None:
        levels['threshold'] = found['image']['threshold']
    if found is not None and pixel_threshold is None:
        levels['pixel_threshold'] = found['pixel']['threshold']
    return dataclasses.replace(detector, calibration_note=note, **levels)


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """Looks at images. `load` makes it, and explains most of the attributes.

    Attributes:
        predict: from `scoring.make_predict`, mapped by `devices.parallel_predict` and compiled.
        variables: of the networks.
        step, image_size, antialias, dtype, bit_depth, score_window, score_top, anomaly_map, tile, batch_size: how
            images are looked at. The activations have the type `dtype`, the values of 16-bit images `bit_depth` bits,
            or 16 if that is 0, and the map is what `networks.Draem.anomaly_map` says.
        threshold, pixel_threshold: an image or a pixel that reaches it is defective; None where it is not known.
        calibration_note: a sentence about the run's calibration, or why this checkpoint has none.
    """

    predict: devices.Program = dataclasses.field(repr=False)
    variables: networks.Variables = dataclasses.field(repr=False)
    step: int
    image_size: tuple[int, int]
    antialias: bool
    dtype: str
    bit_depth: int
    score_window: int
    score_top: float
    anomaly_map: str
    tile: int
    batch_size: int
    threshold: float | None
    pixel_threshold: float | None
    calibration_note: str

    @overload
    def __call__(self, image_or_images: Image) -> Detection: ...  # type: ignore[overload-overlap]  # A string iterates.

    @overload
    def __call__(self, image_or_images: Iterable[Image]) -> list[Detection]: ...

    def __call__(self, image_or_images: Image | Iterable[Image]) -> Detection | list[Detection]:
        """What is wrong with one image, or with each of several.

        Args:
            image_or_images: an image, or a list of images of any sizes. An image is the path of a file that
                `images.read_image` reads, a Pillow image, or an array: uint8 [H, W, 3] (RGB) or [H, W] (grey), and
                whatever else `opening.open_picture` takes.

        Returns:
            A `Detection`, or a list of them.

        Raises:
            UserError: a file cannot be read, an array is not an image, or the network's output is not a number.
        """
        if not opening.is_several(image_or_images):
            (detection,) = self([image_or_images])  # type: ignore[list-item]  # What is no image is refused there.
            return detection
        opened = [opening.open_picture(image, self.bit_depth) for image in image_or_images]
        return [
            self._judge(score, images.resize(anomaly_map, picture.shape[:2]))
            for picture, (score, anomaly_map) in zip(opened, self.measure(opened), strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """What scores depend on, as keywords of `calibration.write` and `calibration.find`."""
        return {
            'step': self.step,
            'score_window': self.score_window,
            'score_top': self.score_top,
            'anomaly_map': self.anomaly_map,
            'tile': self.tile,
            'image_size': self.image_size,
            'antialias': self.antialias,
            'dtype': self.dtype,
            'bit_depth': self.bit_depth,
        }

    def measure(self, pictures: Iterable[np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
        """Scores and maps alone, at the scale that the network sees.

        Args:
            pictures: uint8 [H, W, 3]; one is taken when it is needed, so that not all have to be in memory.

        Yields:
            (score, float32 [h, w] map) of each image. Without tiles (h, w) is `image_size`, and the score is exactly
            that of an evaluation.
        """
        shapes: collections.deque[tuple[int, ...]] = collections.deque()

        def tiles() -> Iterator[np.ndarray]:
            for picture in pictures:
                scaled = self._scale(picture)
                shapes.append(scaled.shape[:2])
                yield from tiling.cut(scaled, self.image_size)

        outputs = self._outputs(tiles())
        for score, anomaly_map in outputs:
            shape = shapes.popleft()
            if self.tile:
                rest = [next(outputs)[1] for _ in range(tiling.count(shape, self.image_size) - 1)]
                anomaly_map = tiling.blend([anomaly_map, *rest], shape, self.image_size)
                # As many pixels as of an image that is one tile: defects have a size of their own.
                count = scoring.count_top(self.image_size, self.score_top)
                score = tiling.highest_mean(anomaly_map, self.score_window, count)
            if not np.isfinite(score):
                raise UserError(
                    f'The networks of step {self.step} give {score} where a score should be: the training diverged. '
                    'Take an earlier --step.'
                )
            yield float(score), anomaly_map

    def _scale(self, picture: np.ndarray) -> np.ndarray:
        """The image at the size of the network, or so that a tile of it has that size."""
        if not self.tile:
            return images.resize(picture, self.image_size, antialias=self.antialias)
        height, width = (max(1, round(side * self.image_size[0] / self.tile)) for side in picture.shape[:2])
        if height * width > images.MAX_PIXELS:
            raise UserError(
                f'Tiles of {self.tile} pixels enlarge an image of {picture.shape[1]} x {picture.shape[0]} pixels to '
                f'{width} x {height}, more than the {images.MAX_PIXELS} pixels that are allowed. Take larger ones.'
            )
        return images.resize(picture, (height, width), antialias=self.antialias)

    def _outputs(self, tiles: Iterable[np.ndarray]) -> Iterator[tuple[np.floating, np.ndarray]]:
        """(score, map) of each tile. The last batch is filled up, so that one compilation is enough."""
        batch: list[np.ndarray] = []
        for tile in tiles:
            batch.append(tile)
            if len(batch) == self.batch_size:
                yield from self._run(batch)
                batch = []
        if batch:
            yield from self._run(batch)

    def _run(self, batch: list[np.ndarray]) -> list[tuple[np.floating, np.ndarray]]:
        filler = [np.zeros_like(batch[0])] * (self.batch_size - len(batch))
        outputs = devices.predict_batch(self.predict, self.variables, np.stack(batch + filler))
        return list(zip(outputs['score'], outputs['map'], strict=True))[: len(batch)]

    def _judge(self, score: float, anomaly_map: np.ndarray) -> Detection:
        decision, boxes, area = None, None, None
        if self.threshold is not None:
            decision = score >= self.threshold
        if self.pixel_threshold is not None:
            boxes, area = regions.find_regions(anomaly_map, self.pixel_threshold)
        return Detection(score, anomaly_map, decision, boxes, area)


def check_arguments(
    *,
    step: Any = None,
    threshold: Any = None,
    pixel_threshold: Any = None,
    tile: Any = 0,
    batch_size: Any = None,
) -> None:
    """Raises UserError for the first argument of `load` that is no number or out of its range."""
    for name, value, least in (('step', step, 0), ('tile', tile, 0), ('batch_size', batch_size, 1)):
        if value is None and name != 'tile':
            continue
        if not isinstance(value, int | np.integer) or value < least:
            raise UserError(f'{name}={reprlib.repr(value)}: expected an integer, {least} or more.')
    for name, level in (('threshold', threshold), ('pixel_threshold', pixel_threshold)):
        # No score or map would ever reach a level above 1, or NaN, and all would be called good.
        if level is not None and not (isinstance(level, _NUMBERS) and 0 <= level <= 1):
            raise UserError(f'{name}={reprlib.repr(level)}: expected a number in [0, 1], as scores and maps are.')


@functools.cache
def _predictor(
    model: nn.Module, score_window: int, score_top: float, image_size: tuple[int, int], batch_size: int
) -> devices.Program:
    """The compiled program; detectors that agree in these arguments share it."""
    predict = devices.parallel_predict(scoring.make_predict(model, score_window=score_window, score_top=score_top))
    devices.compile_predict(predict, _template(model, image_size), (batch_size, *image_size, 3))
    return predict


@functools.cache
def _template(model: nn.Module, image_size: tuple[int, int]) -> networks.Variables:
    return networks.variable_shapes(model, image_size)
