"""Magnetic Tile Defects, as its authors publish it: grey photographs of many sizes, a mask for every defect.

    ROOT/MT_Free/Imgs/exp1_num_4727.jpg         without defect
    ROOT/MT_Blowhole/Imgs/exp1_num_108719.jpg   also MT_Break, MT_Crack, MT_Fray, MT_Uneven
    ROOT/MT_Blowhole/Imgs/exp1_num_108719.png   the mask

There is no official split. Frames whose numbers are close show the same tile, so a random split would test on tiles
that were trained on. Here frames of one `exp` whose numbers follow each other by at most 150 are a group. Groups of
normal images are dealt to test, in an order drawn from a seed, until it holds a fifth of the images; the rest is for
training. All defective images are for testing, except those whose mask is empty (four of MT_Uneven), which are left
out. Normal and defective frames of one tile may fall on different sides.

References:
    Huang, Qiu, Yuan, Surface Defect Saliency of Magnetic Tile, The Visual Computer 2020.
    https://github.com/abin24/Magnetic-tile-defect-datasets.
"""

import hashlib
import os
import pathlib
import re

from data.sets.in_place import InPlaceBuilder, Record, Records, have_defects, make_record, quoted, what_is_near
from draem_jax import images, storage
from draem_jax.errors import UserError

TEST_FRACTION = 0.2
LARGEST_GAP = 150  # between the numbers of frames that may show the same tile
_PREFIX = 'MT_'
_NORMAL_FOLDER = 'MT_Free'


class Builder(InPlaceBuilder):
    """All of it: `tfds.load('magnetic_tile', data_dir=<the folder that holds 'MT_Free'>)`.

    The option `seed` (0) draws another split. Making a builder reads the masks, to leave out empty ones.
    """

    def _find_records(self, root: str, *, seed: int = 0) -> Records:
        normals = _list_photographs(root, _NORMAL_FOLDER)
        if not normals:
            folder = os.path.join(root, _NORMAL_FOLDER, 'Imgs')
            raise UserError(
                f"No .jpg images under '{folder}'. {what_is_near(folder)} Is --config.dataset.root the folder that "
                f"holds '{_NORMAL_FOLDER}'?"
            )
        training, held_out = split_groups(group_frames(normals), seed)
        test = [make_record(root, path) for path in held_out]
        for folder in storage.names_in(root):
            if folder.startswith(_PREFIX) and folder != _NORMAL_FOLDER:
                test += _list_defects(root, folder)
        test.sort(key=lambda record: record.filename)
        return {'train': [make_record(root, path) for path in sorted(training)], 'test': test}


def group_frames(paths: list[str]) -> list[list[str]]:
    """Groups the photographs that may show the same tile.

    Args:
        paths: their names are `exp<e>_num_<number>.jpg`.

    Returns:
        Groups of paths: within one, `e` is the same and the numbers, in order, differ by at most `LARGEST_GAP`.

    Raises:
        UserError: a name is of another form.
    """
    frames = []
    for path in paths:
        match = re.fullmatch(r'exp(\d+)_num_(\d+)', pathlib.PurePath(path).stem)
        if match is None:
            raise UserError(f"'{path}': expected a name such as exp1_num_4727.jpg, which tells neighbouring frames.")
        frames.append((int(match[1]), int(match[2]), path))
    groups: list[list[str]] = []
    last_experiment, last_number = -1, 0
    for experiment, number, path in sorted(frames):
        if experiment != last_experiment or number - last_number > LARGEST_GAP:
            groups.append([])
        groups[-1].append(path)
        last_experiment, last_number = experiment, number
    return groups


def split_groups(groups: list[list[str]], seed: int) -> tuple[list[str], list[str]]:
    """Deals whole groups to test until it holds `TEST_FRACTION` of all.

    Args:
        groups: lists of paths, none of them empty.
        seed: integer; the order is a function of it and of the file names alone.

    Returns:
        (training paths, test paths).
    """

    def draw(group: list[str]) -> bytes:
        # A hash, because a library's random numbers may change with its next version.
        return hashlib.sha256(f'{seed}/{pathlib.PurePath(group[0]).stem}'.encode()).digest()

    wanted = TEST_FRACTION * sum(map(len, groups))
    training: list[str] = []
    test: list[str] = []
    for group in sorted(groups, key=draw):
        (test if len(test) < wanted else training).extend(group)
    return training, test


def _list_photographs(root: str, folder: str) -> list[str]:
    paths = images.list_images(os.path.join(root, folder, 'Imgs'), allow_none=True)
    return [path for path in paths if pathlib.PurePath(path).suffix.lower() in ('.jpg', '.jpeg')]


def _list_defects(root: str, folder: str) -> list[Record]:
    """The records of one kind of defect; those with an empty mask are left out."""
    paths = _list_photographs(root, folder)
    beside = images.list_images(os.path.join(root, folder, 'Imgs'), allow_none=True)
    mask_of = {os.path.splitext(path)[0]: path for path in beside if pathlib.PurePath(path).suffix.lower() == '.png'}
    missing = [path for path in paths if os.path.splitext(path)[0] not in mask_of]
    if missing:
        raise UserError(f'No masks for {quoted(missing)}. Expected a .png of the same name beside each.')
    masks = [mask_of[os.path.splitext(path)[0]] for path in paths]
    defect_type = folder.removeprefix(_PREFIX).lower()
    return [
        make_record(root, path, mask=mask, defect_type=defect_type)
        for path, mask, has_defect in zip(paths, masks, have_defects(masks), strict=True)
        if has_defect
    ]
