"""The user's own images: in the layout of MVTec AD, in one folder of good images, or in folders that options name.

With a test set, the masks optional:

    ROOT/train/good/*.png
    ROOT/test/good/*.png
    ROOT/test/<defect>/001.png
    ROOT/ground_truth/<defect>/001_mask.png     or 001.png, or 001_mask.png beside the image

Without one, everything below ROOT is good (`good_folder`):

    ROOT/*.png

With the option `normal`, and any of the other three, folders of any name (`list_named`):

    ROOT/<normal>/*.png
    ROOT/<normal_test>/*.png
    ROOT/<defects>/001.png                      or <defects>/<defect>/001.png
    ROOT/<masks>/001_mask.png                   likewise, or 001.png

Folders may be nested, and `images.EXTENSIONS` says which formats count. Hidden files are passed over. The case of a
layout's names does not count, and the good images may also lie in folders named ok or normal.
"""

import os
import pathlib
from collections.abc import Sequence

from data.sets.folder.good_folder import SPLITS, is_normal_folder, list_good_folder
from data.sets.folder.masks_beside import split_masks
from data.sets.in_place import NORMAL, InPlaceBuilder, MaskReading, Record, Records, make_record, quoted, what_is_near
from draem_jax import images, storage
from draem_jax.errors import UserError


def list_records(root: str, *, all_good: bool = False) -> Records:
    """The records of a folder in one of the first two layouts above.

    Args:
        root: path of the folder.
        all_good: without a layout, everything in it is good, whatever its folders are called.

    Returns:
        Dict of 'train' and, where there are test images, 'test' to a list of `Record` sorted by filename.

    Raises:
        UserError: no folder, no images, images where the layout has no place for them, or masks missing.
    """
    _check_root(root)
    layout = _find_layout(root)
    if not layout.keys() & set(SPLITS):
        return {'train': list_good_folder(root, all_good=all_good)}
    if all_good:
        raise UserError(f"all_good=true, but '{root}' holds {quoted(list(layout.values()))}: leave the option out.")
    train = os.path.join(root, layout.get('train', 'train'))
    train_paths: list[str] = []
    for name in storage.names_in(train) if storage.is_folder(train) else []:
        if is_normal_folder(name):
            train_paths += _list_images_alone(os.path.join(train, name))
    if not train_paths:
        good = os.path.join(train, NORMAL)
        raise UserError(
            f"No images under '{good}', where the good images to train on belong. {what_is_near(good)} "
            "Is --config.dataset.root the folder that holds 'train'?"
        )
    test, masks = (os.path.join(root, layout.get(name, name)) for name in ('test', 'ground_truth'))
    records = {'train': [make_record(root, path) for path in train_paths], 'test': _list_test(root, test, masks)}
    return {split: _sort(split_records) for split, split_records in records.items() if split_records}


def _find_layout(root: str) -> dict[str, str]:
    """Which of the layout's folders are in a root: {'train': their names as they are written, ...}."""
    found: dict[str, str] = {}
    for name in storage.names_in(root):
        key = name.lower()
        if key in (*SPLITS, 'ground_truth') and storage.is_folder(os.path.join(root, name)):
            if key in found:
                raise UserError(f"'{root}' holds both '{found[key]}' and '{name}'. Expected one of them.")
            found[key] = name
    return found


def _list_images_alone(folder: str) -> list[str]:
    """The images of a folder without the masks among them."""
    return split_masks(images.list_images(folder, allow_none=True), folder)[0]


def _sort(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.filename)


def list_named(root: str, *, normal: str, normal_test: str = '', defects: str = '', masks: str = '') -> Records:
    """The records of folders of any name. Each name is a path below `root`, or several with '+' between.

    Args:
        root: path of the folder that holds the others.
        normal: folder of the good images to train on.
        normal_test: folder of the good images to test on; must not overlap with `normal`.
        defects: folder of the defective images to test on. Images in a folder below it have that folder's name as
            their defect type ('good' is normal), images directly in it have its own name.
        masks: folder of their masks, laid out as `defects`. Either all images of a defect type have one or none has. Of
            several folders of defects, each has one of masks, in the same order, or a folder of its own name in the one
            for all.

    Returns:
        As `list_records`.

    Raises:
        UserError: a named folder is not there or holds no image, two of them overlap, or masks are missing.
    """
    _check_root(root)
    options = {'normal': normal, 'normal_test': normal_test, 'defects': defects, 'masks': masks}
    folders = {option: _named_folders(root, option, text) for option, text in options.items()}
    if masks and not defects:
        raise UserError(f"masks='{masks}' without defects: name the folder of defective images that they belong to.")
    named = [(option, path) for option, paths in folders.items() for path in paths]
    for number, (option, path) in enumerate(named):
        if not images.list_images(path, allow_none=True):
            raise UserError(f"No images under '{path}', named by {option}='{options[option]}'. {what_is_near(path)}")
        for other_number, (other, other_path) in enumerate(named):
            if number != other_number and f'{path}{os.sep}'.startswith(f'{other_path}{os.sep}'):
                raise UserError(
                    f"{option}='{options[option]}' lies in {other}='{options[other]}': its images would count twice. "
                    'Name folders that do not overlap.'
                )
    train, test = (
        [make_record(root, path) for folder in folders[option] for path in _list_images_alone(folder)]
        for option in ('normal', 'normal_test')
    )
    for folder, ground_truth in _pair(folders['defects'], folders['masks']):
        test += _list_test(root, folder, ground_truth, os.path.basename(folder))
    if masks and not any(record.mask for record in test):
        raise UserError(
            f"No mask under '{folders['masks'][0]}' belongs to an image under '{folders['defects'][0]}'. Expected the "
            'same folders and names, or names with _mask at their end.'
        )
    return {split: _sort(records) for split, records in (('train', train), ('test', test)) if records}


def _named_folders(root: str, option: str, text: str) -> list[str]:
    """The paths of the folders that an option names, one or several with '+' between."""
    names = [text] if storage.is_folder(os.path.join(root, text)) else text.split('+')
    paths = []
    for name in filter(None, names):
        normal_form = os.path.normpath(name)
        if os.path.isabs(normal_form) or normal_form.split(os.sep)[0] in ('.', '..'):
            raise UserError(f"{option}='{text}': expected a folder below '{root}', such as '{option}'.")
        paths.append(os.path.join(root, normal_form))
    return paths


def _pair(defects: Sequence[str], masks: Sequence[str]) -> list[tuple[str, str]]:
    """Each folder of defects with its folder of masks, or ''."""
    if len(masks) == len(defects):
        return list(zip(defects, masks, strict=True))
    if len(masks) > 1:
        raise UserError(
            f'The option masks names {len(masks)} folders, defects {len(defects)}. Expected as many, or one for all.'
        )
    return [(folder, os.path.join(masks[0], os.path.basename(folder)) if masks else '') for folder in defects]


def _check_root(root: str) -> None:
    if not storage.is_folder(root):
        raise UserError(f"No folder '{root}'. {what_is_near(root)} Is --config.dataset.root written correctly?")


def _list_test(root: str, test: str, ground_truth: str, default_type: str | None = None) -> list[Record]:
    """The records under `test`, each with its mask; either all images of a defect type have one or none has.

    Images directly in `test` have the default type; without one they are refused. Masks under `ground_truth` count, and
    those beside the images.
    """
    paths, beside = split_masks(images.list_images(test, allow_none=True), test)
    mask_paths = images.list_images(ground_truth, allow_none=True) if ground_truth else []
    masks = {_key(path, ground_truth): path for path in mask_paths}
    types_with_masks = {_type(path, ground_truth) or default_type for path in mask_paths}
    types_with_masks |= {_type(path, test) or default_type for path in beside}
    records = []
    for path in paths:
        defect_type = _type(path, test) or default_type
        if defect_type is None:
            raise UserError(f"'{path}' has no defect type. Expected it under 'test/{NORMAL}' or 'test/<defect>'.")
        mask = None
        if defect_type != NORMAL and defect_type.lower() in {str(name).lower() for name in types_with_masks}:
            key = _key(path, test)
            mask = masks.get(f'{key}_mask') or masks.get(key) or beside.get(path)
            if mask is None:
                expected = os.path.join(ground_truth or test, pathlib.PurePath(path).relative_to(test).with_suffix(''))
                raise UserError(
                    f"No mask for '{path}'. Expected '{expected}_mask.png', for other masks of '{defect_type}' are "
                    'there. Add it, or move that folder away to go without.'
                )
        records.append(make_record(root, path, mask=mask, defect_type=defect_type))
    return records


def _key(path: str, folder: str) -> str:
    """The path below a folder without its ending: what an image and its mask have in common. Folders in lower case."""
    below = pathlib.PurePath(path).relative_to(folder).with_suffix('')
    return '/'.join([*(part.lower() for part in below.parts[:-1]), below.name])


def _type(path: str, folder: str) -> str | None:
    """The first folder on the way from `folder` to the file, 'good' where it is so called, or None if there is none."""
    first = next(iter(pathlib.PurePath(path).relative_to(folder).parts[:-1]), None)
    return NORMAL if first is not None and is_normal_folder(first) else first


class Builder(InPlaceBuilder):
    """The images of a folder: `tfds.load('folder', data_dir=ROOT)`, or with `builder_kwargs={'normal': ..., ...}`."""

    LISTS_ALL_FILES = True

    def _find_records(
        self,
        root: str,
        *,
        normal: str = '',
        normal_test: str = '',
        defects: str = '',
        masks: str = '',
        all_good: bool = False,
        mask_ids: str = '',
        mask_inverted: bool = False,
    ) -> Records:
        """Options beside those of `list_records` and `list_named`:

        Args:
            mask_ids: the values of masks that mark defects, such as '1' or '1+3'; '' for all above 0.
            mask_inverted: 0 marks the defects in masks.
        """
        reading = MaskReading(ids=_parse_ids(mask_ids), inverted=mask_inverted)
        if any((normal, normal_test, defects, masks)):
            if not normal:
                raise UserError('The good images to train on: name their folder with the option normal.')
            if all_good:
                raise UserError(f"all_good=true, but normal='{normal}' names the good images: leave one of them out.")
            records = list_named(root, normal=normal, normal_test=normal_test, defects=defects, masks=masks)
        else:
            records = list_records(root, all_good=all_good)
        return {split: [record.with_mask_reading(reading) for record in each] for split, each in records.items()}


def _parse_ids(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split('+')] if text else []
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"mask_ids='{text}': expected whole numbers with + between, such as 1 or 1+3.")
    return tuple(map(int, parts))
