"""Masks that lie among the images they belong to: `001_mask.png` beside `001.jpg`, or in a folder named `masks` below.

Taken for images they would be trained on as good parts, or counted as defective ones.
"""

import pathlib
from collections.abc import Sequence

_ENDINGS = ('_mask', '_gt', '_ground_truth')
_FOLDERS = ('mask', 'masks', 'gt', 'ground_truth', 'groundtruth', 'ground truth', 'ground-truth')


def is_mask_folder(name: str) -> bool:
    """Whether the name of a folder, in any case, says that masks are in it."""
    return name.lower() in _FOLDERS


def split_masks(paths: Sequence[str], folder: str) -> tuple[list[str], dict[str, str]]:
    """Tells images from the masks among them.

    Args:
        paths: of image files that start with `folder`.
        folder: in which they were found.

    Returns:
        (images, {image: mask}): the paths that are no masks, in their order, and the masks of those that have one. A
        mask is a file that is named after another one, or lies in a folder for masks and has the name of an image.
    """
    keys = {path: _key(path, folder) for path in paths}
    by_key = {key: path for path, (key, is_inside) in keys.items() if not is_inside}
    masks: dict[str, str] = {}
    images = []
    for path, (key, is_inside) in keys.items():
        bare = next((key[: -len(ending)] for ending in _ENDINGS if key.lower().endswith(ending)), None)
        owner = by_key.get(bare) if bare is not None else None
        if owner is None and is_inside:
            owner = by_key.get(key)
        if owner is not None and owner != path:
            masks[owner] = path
        else:
            images.append(path)
    if masks:  # A folder for masks has masks alone, also such as belong to no image.
        images = [path for path in images if not keys[path][1]]
    return images, masks


def _key(path: str, folder: str) -> tuple[str, bool]:
    """(the path below a folder without its ending and without folders for masks, whether there was such a folder)."""
    below = pathlib.PurePath(path).relative_to(folder).with_suffix('')
    parts = [part for part in below.parts[:-1] if not is_mask_folder(part)]
    return '/'.join([*parts, below.name]), len(parts) < len(below.parts) - 1
