"""The user's own images: in the layout of MVTec AD, in one folder of good images, or in folders that options name.

With a test set, the masks optional:

    ROOT/train/good/*.png
    ROOT/test/good/*.png
    ROOT/test/<defect>/001.png
    ROOT/ground_truth/<defect>/001_mask.png     or 001.png

Without one, everything below ROOT is good:

    ROOT/*.png

With the option `normal`, and any of the other three, folders of any name (`list_named`):

    ROOT/<normal>/*.png
    ROOT/<normal_test>/*.png
    ROOT/<defects>/001.png                      or <defects>/<defect>/001.png
    ROOT/<masks>/001_mask.png                   likewise, or 001.png

Folders may be nested, and `images.EXTENSIONS` says which formats count. Hidden files are passed over.
"""

import os
import pathlib

from data.sets.in_place import NORMAL, InPlaceBuilder, Record, Records, make_record, quoted, what_is_near
from draem_jax import images, storage
from draem_jax.errors import UserError

_LAYOUT = ('train', 'test', 'ground_truth')


def list_records(root: str) -> Records:
    """The records of a folder in one of the first two layouts above.

    Args:
        root: path of the folder.

    Returns:
        Dict of 'train' and, where there are test images, 'test' to a list of `Record` sorted by filename.

    Raises:
        UserError: no folder, no images, images where the layout has no place for them, or masks missing.
    """
    _check_root(root)
    if not any(storage.is_folder(os.path.join(root, name)) for name in _LAYOUT):
        return {'train': _list_good_folder(root)}
    train = os.path.join(root, 'train', NORMAL)
    train_paths = images.list_images(train, allow_none=True)
    if not train_paths:
        raise UserError(
            f"No images under '{train}', where the good images to train on belong. {what_is_near(train)} "
            "Is --config.dataset.root the folder that holds 'train'?"
        )
    records = {
        'train': [make_record(root, path) for path in train_paths],
        'test': _list_test(root, os.path.join(root, 'test'), os.path.join(root, 'ground_truth')),
    }
    return {split: split_records for split, split_records in records.items() if split_records}


def list_named(root: str, *, normal: str, normal_test: str = '', defects: str = '', masks: str = '') -> Records:
    """The records of folders of any name; each name is a path below `root`.

    Args:
        root: path of the folder that holds the others.
        normal: folder of the good images to train on.
        normal_test: folder of the good images to test on; must not overlap with `normal`.
        defects: folder of the defective images to test on. Images in a folder below it have that folder's name as
            their defect type ('good' is normal), images directly in it have its own name.
        masks: folder of their masks, laid out as `defects`. Either all images of a defect type have one or none has.

    Returns:
        As `list_records`.

    Raises:
        UserError: a named folder is not there or holds no image, two of them overlap, or masks are missing.
    """
    _check_root(root)
    folders = {'normal': normal, 'normal_test': normal_test, 'defects': defects, 'masks': masks}
    names = {option: os.path.normpath(name) for option, name in folders.items() if name}
    for option, name in names.items():
        if os.path.isabs(name) or name.split(os.sep)[0] in ('.', '..'):
            raise UserError(f"{option}='{folders[option]}': expected a folder below '{root}', such as '{option}'.")
    if masks and not defects:
        raise UserError(f"masks='{masks}' without defects: name the folder of defective images that they belong to.")
    paths = {option: os.path.join(root, name) for option, name in names.items()}
    for option, path in paths.items():
        if not images.list_images(path, allow_none=True):
            raise UserError(f"No images under '{path}', named by {option}='{folders[option]}'. {what_is_near(path)}")
        for other, other_path in paths.items():
            if option != other and f'{path}{os.sep}'.startswith(f'{other_path}{os.sep}'):
                raise UserError(
                    f"{option}='{folders[option]}' lies in {other}='{folders[other]}': its images would count twice. "
                    'Name folders that do not overlap.'
                )
    records = {'train': [make_record(root, path) for path in images.list_images(paths['normal'])], 'test': []}
    if normal_test:
        records['test'] += [make_record(root, path) for path in images.list_images(paths['normal_test'])]
    if defects:
        default_type = os.path.basename(paths['defects'])
        records['test'] += _list_test(root, paths['defects'], paths.get('masks', ''), default_type)
    if masks and not any(record.mask for record in records['test']):
        raise UserError(
            f"No mask under '{paths['masks']}' belongs to an image under '{paths['defects']}'. Expected the same "
            'folders and names, or names with _mask at their end.'
        )
    records['test'].sort(key=lambda record: record.filename)
    return {split: split_records for split, split_records in records.items() if split_records}


def _check_root(root: str) -> None:
    if not storage.is_folder(root):
        raise UserError(f"No folder '{root}'. {what_is_near(root)} Is --config.dataset.root written correctly?")


def _list_good_folder(root: str) -> list[Record]:
    """The records of a folder that holds good images alone."""
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
            f"'{root}' holds '{NORMAL}' beside {quoted(sorted(first_folders - {NORMAL}))}. Expected "
            "good images alone, or 'train/good' and 'test/<defect>'. Is --config.dataset.root one folder too deep?"
        )
    return [make_record(root, path) for path in paths]


def _list_test(root: str, test: str, ground_truth: str, default_type: str | None = None) -> list[Record]:
    """The records under `test`, each with its mask; either all images of a defect type have one or none has.

    Images directly in `test` have the default type; without one they are refused.
    """
    mask_paths = images.list_images(ground_truth, allow_none=True) if ground_truth else []
    masks = {_key(path, ground_truth): path for path in mask_paths}
    types_with_masks = {_first_folder(path, ground_truth) or default_type for path in mask_paths}
    records = []
    for path in images.list_images(test, allow_none=True):
        defect_type = _first_folder(path, test) or default_type
        if defect_type is None:
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
        records.append(make_record(root, path, mask=mask, defect_type=defect_type))
    return records


def _key(path: str, folder: str) -> str:
    """The path below a folder without its ending: what an image and its mask have in common."""
    return pathlib.PurePath(path).relative_to(folder).with_suffix('').as_posix()


def _first_folder(path: str, folder: str) -> str | None:
    """The first folder on the way from `folder` to the file, or None if it lies directly in it."""
    return next(iter(pathlib.PurePath(path).relative_to(folder).parts[:-1]), None)


class Builder(InPlaceBuilder):
    """The images of a folder: `tfds.load('folder', data_dir=ROOT)`, or with `builder_kwargs={'normal': ..., ...}`."""

    def _find_records(
        self, root: str, *, normal: str = '', normal_test: str = '', defects: str = '', masks: str = ''
    ) -> Records:
        if not any((normal, normal_test, defects, masks)):
            return list_records(root)
        if not normal:
            raise UserError('The good images to train on: name their folder with the option normal.')
        return list_named(root, normal=normal, normal_test=normal_test, defects=defects, masks=masks)
