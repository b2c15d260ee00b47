"""The picture files of an evaluation: one strip for each test image, with all there is to see of it side by side."""

import os
import pathlib

import numpy as np

from draem_jax import images, pictures

FOLDER = 'pictures'  # beside the report's page


def picture_path(folder: str | os.PathLike[str], index: int) -> pathlib.Path:
    """The file of the image at a place in the test split.

    The place is its name, because a user's file name could hold anything.
    """
    return pathlib.Path(folder) / f'{index:05}.jpg'


def write(
    path: str | os.PathLike[str],
    image: np.ndarray,
    reconstruction: np.ndarray,
    anomaly_map: np.ndarray,
    mask: np.ndarray | None,
) -> None:
    """Writes the strip of one image; the arguments are those of `pictures.strip`."""
    images.write_jpeg(path, pictures.strip(image, reconstruction, anomaly_map, mask))


def read_panels(folder: str | os.PathLike[str], index: int) -> list[np.ndarray]:
    """The panels of the image at a place, each uint8 RGB [h, w, 3], in the order of `pictures.STRIP_PANELS`."""
    return pictures.cut_strip(images.read_image(picture_path(folder, index)))


def panel_shape(folder: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of every panel of the pictures in a folder."""
    height, width, _ = read_panels(folder, 0)[0].shape
    return height, width
