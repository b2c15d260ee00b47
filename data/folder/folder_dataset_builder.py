"""Images of one's own, in the layout of MVTec AD or in one folder of good images.

With a test set, the masks optional:

    ROOT/train/good/*.png
    ROOT/test/good/*.png
    ROOT/test/<defect>/001.png
    ROOT/ground_truth/<defect>/001_mask.png     or 001.png

Without one, everything below ROOT is good:

    ROOT/*.png

Folders may be nested, and `images.EXTENSIONS` says which formats count. Hidden files are passed over.
"""

import os
import pathlib

from data.in_place import NORMAL, InPlaceBuilder, Record
from draem_jax import images
from draem_jax.errors import UserError

_LAYOUT = ('train', 'test', 'ground_truth')


def list_records(root):
    """The records of a folder in one of the two layouts above.

    Args:
        root: path of the folder.

    Returns:
        Dict of 'train' and, where there are test images, 'test' to a list of `Record` sorted by filename.

    Raises:
        UserError: no folder, no images, images where the layout has no place for them, or masks missing.
    """
    if not os.path.isdir(root):
        raise UserError(f"No folder '{root}'. {_what_is_near(root)} Is --config.dataset.root written correctly?")
    if not any(os.path.isdir(os.path.join(root, name)) for name in _LAYOUT):
        return {'train': _list_good_folder(root)}
    train = os.path.join(root, 'train', NORMAL)
    train_paths = images.list_images(train, allow_none=True)
    if not train_paths:
        raise UserError(
            f"No images under '{train}', where the good images to train on belong. {_what_is_near(train)} "
            "Is --config.dataset.root the folder that holds 'train'?"
        )
    records = {'train': [_record(root, path) for path in train_paths], 'test': _list_test(root)}
    return {split: split_records for split, split_records in records.items() if split_records}


def _list_good_folder(root):
    paths = images.list_images(root)
    for path in paths:
        # A folder of data sets, or a test folder, would put defects and masks among the good images.
        folders = pathlib.PurePath(path).relative_to(root).parts[:-1]
        data_set = next((number for number, name in enumerate(folders) if name in _LAYOUT), None)
        if data_set is not None:
            raise UserError(
                f"'{root}' holds the data set '{'/'.join(folders[:data_set])}'. Name it with --config.dataset.category "
                'or --config.dataset.root: one model is trained on one kind of part.'
            )
    first_folders = {folder for path in paths for folder in pathlib.PurePath(path).relative_to(root).parts[:-1][:1]}
    if NORMAL in first_folders and len(first_folders) > 1:
        raise UserError(
            f"'{root}' holds '{NORMAL}' beside {_quoted(sorted(first_folders - {NORMAL}))}. Expected "
            "good images alone, or 'train/good' and 'test/<defect>'. Is --config.dataset.root one folder too deep?"
        )
    return [_record(root, path) for path in paths]


def _list_test(root):
    """The records under ROOT/test, each with its mask; of a defect type either all have one or none has."""
    test = os.path.join(root, 'test')
    ground_truth = os.path.join(root, 'ground_truth')
    masks = {_key(path, ground_truth): path for path in images.list_images(ground_truth, allow_none=True)}
    types_with_masks = {key.split('/')[0] for key in masks}
    records = []
    for path in images.list_images(test, allow_none=True):
        defect_type, *inner = pathlib.PurePath(path).relative_to(test).parts
        if not inner:
            raise UserError(f"'{path}' has no defect type. Expected it under 'test/{NORMAL}' or 'test/<defect>'.")
        mask = None
        if defect_type != NORMAL and defect_type in types_with_masks:
            key = _key(path, test)
            mask = masks.get(f'{key}_mask') or masks.get(key)
            if mask is None:
                raise UserError(
                    f"No mask for '{path}'. Expected '{os.path.join(ground_truth, key)}_mask.png', for other masks of "
                    f"'{defect_type}' are there. Add it, or move that folder away to go without."
                )
        records.append(_record(root, path, mask=mask, defect_type=defect_type))
    return records


def _key(path, folder):
    """The path below a folder without its ending: what an image and its mask have in common."""
    return pathlib.PurePath(path).relative_to(folder).with_suffix('').as_posix()


def _record(root, path, *, mask=None, defect_type=NORMAL):
    filename = pathlib.PurePath(path).relative_to(root).as_posix()
    return Record(image=path, mask=mask, label=int(defect_type != NORMAL), defect_type=defect_type, filename=filename)


def _what_is_near(path):
    """What the nearest existing folder on the way to `path` holds, for an error message."""
    while not os.path.isdir(path):
        path = os.path.dirname(os.path.abspath(path))
    names = sorted(name for name in os.listdir(path) if not name.startswith('.'))
    return f"Found in '{path}': {_quoted(names) or 'nothing'}."


def _quoted(names, limit=6):
    return ', '.join(f"'{name}'" for name in names[:limit]) + (', ...' if len(names) > limit else '')


class Builder(InPlaceBuilder):
    """The images of a folder: `tfds.load('folder', data_dir=ROOT)`."""

    def _find_records(self, root):
        return list_records(root)
