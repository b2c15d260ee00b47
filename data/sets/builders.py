"""The builders of this folder by name, as a config names them. Importing this registers them with TFDS."""

import importlib
import inspect
import os
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from draem_jax.errors import UserError

_BUILDERS: dict[str, type[tfds.core.DatasetBuilder]] = {
    path.parent.name: importlib.import_module(f'data.sets.{path.parent.name}.{path.stem}').Builder
    for path in sorted(pathlib.Path(__file__).parent.glob('*/*_dataset_builder.py'))
}


def category_names(name: str) -> list[str]:
    """The categories of a data set, in its own order; none where it has none or, like 'folder', cannot know them.

    Raises:
        UserError: no such name.
    """
    return list(_named(name).builder_configs)


def _named(name: str) -> type[tfds.core.DatasetBuilder]:
    if name not in _BUILDERS:
        raise UserError(f"No data set '{name}'. Known: {', '.join(_BUILDERS)}. Change --config.dataset.name.")
    return _BUILDERS[name]


def make_builder(name: str, category: str = '', root: str = '', **options: Any) -> tfds.core.DatasetBuilder:
    """The TFDS builder of a data set by name.

    Args:
        name: 'folder', 'mvtec_ad', ...: a folder of `data/sets/` that holds a builder.
        category: one of the data set's categories; with 'folder' a folder below `root`, or nothing.
        root: the folder where the data set lies, or the folder that holds its categories. Data sets that
            are drawn or downloaded are kept below it; nothing means TFDS's own folder.
        **options: further options of that builder, as its `_find_records` names them: `normal`, `normal_test`,
            `defects` and `masks` of 'folder'; `split` of 'visa'; `supervised` of 'ksdd2' and 'dagm'; ...

    Returns:
        The builder; most are a `data.sets.in_place.InPlaceBuilder`.

    Raises:
        UserError: no such name, category or option, or the files are not as expected.
    """
    builder = _named(name)
    for option in options:
        if option not in (known := _options(name)):
            raise UserError(
                f"'{name}' has no option '{option}'. Known: {', '.join(known) or 'none'}. Change "
                '--config.dataset.options.'
            )
    if name == 'folder':
        return builder(data_dir=os.path.join(root, category) if root else None, **options)
    categories = list(builder.builder_configs)
    if category not in (categories or ['']):
        raise UserError(
            f"'{name}' has no category '{category}'. Known: {', '.join(categories) or 'none, leave it empty'}. "
            'Change --config.dataset.category.'
        )
    return builder(data_dir=root or None, config=category or None, **options)


def make_builders(
    name: str, category: str = '', root: str = '', options: str = ''
) -> dict[str, tfds.core.DatasetBuilder]:
    """The builders that a config names: one, or one for each of several categories.

    Args:
        name: as for `make_builder`.
        category: as for `make_builder`, or several with commas between, or 'all' for all that the data set has.
        root: as for `make_builder`.
        options: further options of the builder as text: 'name=value' with commas between.

    Returns:
        {category: builder}.

    Raises:
        UserError: as `make_builder`, or options that cannot be understood.
    """
    categories = [category]
    if name in _BUILDERS and name != 'folder':
        if category == 'all' and _BUILDERS[name].builder_configs:
            categories = list(_BUILDERS[name].builder_configs)
        elif ',' in category:
            categories = [part.strip() for part in category.split(',')]
    if len(set(categories)) < len(categories):
        raise UserError(f"--config.dataset.category='{category}': expected every category once.")
    values = _parse_options(name, options)
    return {one: make_builder(name, one, root, **values) for one in categories}


def _options(name: str) -> dict[str, inspect.Parameter]:
    """The further options of a builder by name; data sets that are not read in place have none."""
    find_records = getattr(_BUILDERS.get(name), '_find_records', None)
    parameters = inspect.signature(find_records).parameters if find_records else {}
    return {option: parameter for option, parameter in parameters.items() if option not in ('self', 'root')}


def _parse_options(name: str, text: str) -> dict[str, Any]:
    """'a=1,b=text' -> {'a': 1, 'b': 'text'}, each of the type that the option's default has."""
    known = _options(name)
    values: dict[str, Any] = {}
    for part in filter(None, text.split(',')):
        option, equals, value = (side.strip() for side in part.partition('='))
        if not equals or not option.isidentifier():
            raise UserError(
                f"--config.dataset.options='{text}': expected name=value with commas between, found '{part}'."
            )
        default = known[option].default if option in known else ''
        try:
            values[option] = {'true': True, 'false': False}[value.lower()] if isinstance(default, bool) else value
            if isinstance(default, int) and not isinstance(default, bool):
                values[option] = int(value)
        except (KeyError, ValueError) as error:
            expected = 'true or false' if isinstance(default, bool) else 'an integer'
            raise UserError(f"--config.dataset.options='{text}': {option}={value}, expected {expected}.") from error
    return values
