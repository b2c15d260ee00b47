"""A folder without a layout: is all of it good? Images in several folders are refused until the user says which."""

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence

from data.sets.folder.masks_beside import is_mask_folder, split_masks
from data.sets.in_place import NORMAL, Record, make_record
from draem_jax import images
from draem_jax.errors import UserError

SPLITS = ('train', 'test')  # folders that make a layout
_NORMAL_NAMES = (NORMAL, 'ok', 'normal')
_DEFECT_NAMES = ('abnormal', 'anomaly', 'anomalies', 'bad', 'defect', 'defective', 'defects', 'fail', 'ko', 'ng', 'nok')
_SHOWN = 8  # So many folders are listed in an error.


def is_normal_folder(name: str) -> bool:
    """Whether the name of a folder, in any case, says that good images are in it: good, ok or normal."""
    return name.lower() in _NORMAL_NAMES


def list_good_folder(root: str, *, all_good: bool = False) -> list[Record]:
    """The records of a folder that holds good images alone.

    Args:
        root: path of the folder.
        all_good: the user has said so. Otherwise images in several folders are refused, and so is a name that says
            otherwise.

    Raises:
        UserError: no images, or they may not all be good; the message names the option that says which are.
    """
    paths = images.list_images(root)
    if not all_good:
        _refuse_data_set(root, paths)
        _refuse_masks(root, paths)
        _refuse_several(root, paths)
    return [make_record(root, path) for path in paths]


def _refuse_data_set(root: str, paths: Sequence[str]) -> None:
    """A folder of data sets would put defects and masks among the good images."""
    for path in paths:
        folders = _folders(root, path)
        depth = next((number for number, name in enumerate(folders) if name.lower() in SPLITS), None)
        if depth is not None:
            raise UserError(
                f"'{root}' holds the data set '{'/'.join(folders[:depth])}'. Name it with --config.dataset.category "
                'or --config.dataset.root: one model is trained on one kind of part.'
            )


def _refuse_masks(root: str, paths: Sequence[str]) -> None:
    masks = split_masks(paths, root)[1]
    if masks:
        image, mask = next(iter(masks.items()))
        raise UserError(
            f"'{mask}' is named as the mask of '{image}', so not all images in '{root}' are good. Put the good ones in "
            'a folder of their own, and name the folders: --config.dataset.options=normal=FOLDER,defects=FOLDER. If '
            'none of them is a mask: --config.dataset.options=all_good=true.'
        )


def _refuse_several(root: str, paths: Sequence[str]) -> None:
    """Goes down while there is one folder alone; refuses a name of defects, and more than one folder."""
    inside: tuple[str, ...] = ()
    while True:
        counts: dict[str, int] = collections.Counter(
            next(iter(_folders(root, path)[len(inside) :]), '') for path in paths
        )
        names = sorted(counts)
        if len(counts) > 1:
            raise UserError(_describe_several(root, inside, counts))
        if names == ['']:
            return
        if is_mask_folder(names[0]) or names[0].lower() in _DEFECT_NAMES:
            raise UserError(
                f"All {len(paths)} images of '{root}' lie in '{'/'.join([*inside, *names])}', which does not "
                'sound like good ones. If they are: --config.dataset.options=all_good=true.'
            )
        inside += (names[0],)


def _describe_several(root: str, inside: Sequence[str], counts: Mapping[str, int]) -> str:
    names = [name for name in sorted(counts) if name]
    found = [f'{counts[""]} directly in it'] if '' in counts else []
    found += [f"{counts[name]} in '{'/'.join([*inside, name])}'" for name in names[:_SHOWN]]
    found += ['...'] if len(names) > _SHOWN else []
    roles = {
        'normal': [name for name in names if is_normal_folder(name)],
        'defects': [name for name in names if not is_normal_folder(name) and not is_mask_folder(name)],
        'masks': [name for name in names if is_mask_folder(name)],
    }
    if roles['normal'] and '' not in counts:
        paths = {role: '+'.join('/'.join([*inside, name]) for name in chosen) for role, chosen in roles.items()}
        options = ','.join(f'{role}={path}' for role, path in paths.items() if path)
        advice = f'--config.dataset.options={options} says which are good, and all_good=true that all of them are.'
    else:
        advice = (
            '--config.dataset.options=all_good=true says that all of them are good; normal=FOLDER,defects=FOLDER '
            '(several with + between) which are.'
        )
    if NORMAL in names or os.path.basename(root).lower() in SPLITS:
        advice += ' Or is --config.dataset.root one folder too deep?'
    return f"'{root}' holds images in several folders: {', '.join(found)}. {advice}"


def _folders(root: str, path: str) -> tuple[str, ...]:
    """The folders on the way from `root` to a file."""
    return pathlib.PurePath(path).relative_to(root).parts[:-1]
