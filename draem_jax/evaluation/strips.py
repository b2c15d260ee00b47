"""The pictures of an evaluation: for each test image a file with all there is to see of it, side by side."""

import pathlib

from draem_jax import images, pictures

FOLDER = 'pictures'  # beside the report's page


def picture_path(folder, index):
    """The file of the image at a place in the test split.

    It is named by that place: file names of the user's could hold anything, so they never name a file of ours.
    """
    return pathlib.Path(folder) / f'{index:05}.jpg'


def write(path, image, reconstruction, anomaly_map, mask):
    """Writes the picture of an image; the arguments are those of `pictures.strip`."""
    images.write_jpeg(path, pictures.strip(image, reconstruction, anomaly_map, mask))


def read_panels(folder, index):
    """The panels of the image at a place, as `pictures.STRIP_PANELS` names them: list of uint8 RGB [h, w, 3]."""
    return pictures.cut_strip(images.read_image(picture_path(folder, index)))


def panel_shape(folder):
    """(height, width) of one panel of the pictures in a folder."""
    height, width, _ = read_panels(folder, 0)[0].shape
    return height, width
