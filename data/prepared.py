"""Data sets that TFDS prepares and keeps, read so that damaged files end in one line that says what to delete."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds

from draem_jax.errors import UserError, first_line


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Draws or downloads what a builder needs; does nothing for files that are read in place.

    Raises:
        UserError: it cannot be written or fetched.
    """
    try:
        try:
            builder.download_and_prepare()
        except FileExistsError:  # Another process, such as another seed of a sweep, prepared the same data set first.
            builder.download_and_prepare()
    except OSError as error:
        raise UserError(
            f"Cannot prepare '{builder.name}' in '{folder_of(builder)}': {error.strerror or first_line(error)}. "
            'Data sets that are drawn or downloaded are kept below --config.dataset.root.'
        ) from error
    if builder.is_prepared() and not builder.info.splits:  # TFDS takes it for prepared without its description, too.
        raise _damaged(folder_of(builder), 'it has no dataset_info.json')


def read(builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> Iterator[dict[str, Any]]:
    """The examples of a split as TFDS decodes them, in order.

    Args:
        builder: of a prepared data set.
        split: 'train' or 'test'.
        **options: further ones of TFDS's `as_dataset`.

    Raises:
        UserError: a file is damaged or gone.
    """
    with explaining_damage(lambda: folder_of(builder)):
        yield from builder.as_dataset(split=split, shuffle_files=False, **options).as_numpy_iterator()


def open_builder(name: str, root: str) -> tfds.core.DatasetBuilder:
    """TFDS's own builder of a data set.

    Args:
        name: as TFDS knows it.
        root: the TFDS data folder, '' for TFDS's own.

    Raises:
        UserError: the data set is prepared there, but its description is damaged.
    """

    def find_folder() -> str | None:
        # Beside them there may be files of the user's.
        above = pathlib.Path(root or tfds.core.constants.DATA_DIR).expanduser() / name
        return next((str(path.parent) for path in sorted(above.glob('*/dataset_info.json'))), None)

    with explaining_damage(find_folder):
        return tfds.builder(name, data_dir=root or None)


def folder_of(builder: tfds.core.DatasetBuilder) -> str:
    """The folder in which TFDS keeps a prepared data set; a builder may keep it elsewhere than its own `data_dir`."""
    return getattr(builder, 'prepared_folder', builder.data_dir)


def files_of(builder: tfds.core.DatasetBuilder) -> list[str]:
    """The files in which TFDS keeps a prepared data set."""
    return sorted(str(path) for path in pathlib.Path(folder_of(builder)).iterdir() if path.is_file())


@contextlib.contextmanager
def explaining_damage(find_folder: Callable[[], str | None]) -> Iterator[None]:
    """Turns what TFDS and TensorFlow raise of damaged files into a UserError that names the folder to delete.

    Args:
        find_folder: returns the folder of the prepared data set; None for an error that cannot come from its files.
    """
    try:
        yield
    except Exception as error:
        # Libraries' errors are told by their module, because importing TensorFlow takes seconds.
        is_of_files = isinstance(error, ValueError | KeyError | OSError)
        is_of_library = type(error).__module__.split('.')[0] in ('tensorflow', 'google')
        folder = find_folder() if is_of_files or is_of_library else None
        if folder is None:
            raise
        raise _damaged(folder, re.sub(r'^\{\{.*?\}\}\s*|\s*\[Op:.*$', '', first_line(error))) from error


def _damaged(folder: str, reason: str) -> UserError:
    return UserError(
        f"The prepared data set in '{folder}' cannot be read: {reason[:200].rstrip('.')}. Delete this folder, and the "
        'next start makes it anew.'
    )
