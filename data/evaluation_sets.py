"""What a run is evaluated on: the test split or, where there are no normal test images, those held out of training.

Where there are no defective ones either, anomalies are simulated on the held-out images, as in training. Results on
them tell whether the training went well, but not how well real defects are found.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data import inputs, pipeline, prepared, streaming
from data.normals import has_normal_test, split_by_names
from data.sets.builders import make_builders
from data.sets.in_place import NORMAL, Example, InPlaceBuilder
from draem_jax.errors import UserError

DEFECT_TYPE = 'simulated'
NOTE = (
    'There are no test images: measured on held-out normal images and on anomalies simulated on them, which tells '
    'whether training went well, not how well real defects are found.'
)
_NORMALS_NOTE = 'There are no normal test images: measured with {} that were held out of training.'
_NO_NORMALS_NOTE = (
    'There are no normal test images, and this run was trained on all good ones. A new run with '
    '--config.dataset.test_fraction=0.1 keeps some for the test.'
)

_SEED = 2**31 - 3  # neither a training nor a validation has this seed
_MIN_ANOMALIES = 64


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """What one category is evaluated on.

    Attributes:
        count: number of examples.
        read: reads them, as `streaming.read_split` does.
        split: name for the results.
        note: a sentence for the results where they have to be read with care, or None.
    """

    count: int
    read: Callable[[], Iterable[Example]]
    split: str = 'test'
    note: str | None = None


def open_evaluation_sets(
    dataset: Mapping[str, Any],
    synthesis: Mapping[str, Any],
    read_held_out: Callable[[], inputs.HeldOutNames | None],
) -> dict[str, EvaluationSet]:
    """What a run on a config's data set is evaluated on.

    Args:
        dataset: the config's section of that name.
        synthesis: likewise; it says which anomalies are simulated where the data set has no test images.
        read_held_out: returns which images the run keeps out of training, as `Inputs.held_out_names`, or None; called
            only if there are no normal test images.

    Returns:
        {category: EvaluationSet}.

    Raises:
        UserError: a category has no test images, and none were held out.
    """
    root, category = dataset['root'], dataset['category']
    builders = make_builders(dataset['name'], category, root, dataset['options'])
    tests = {one: _open_split(builder, dataset) for one, builder in builders.items()}
    without = [one for one, test in tests.items() if not test.count]
    if not without:
        return {one: _add_normals(test, builders[one], dataset, read_held_out, one) for one, test in tests.items()}
    if len(tests) > 1:
        raise UserError(f"No test images of {', '.join(without)} in '{root}', so there is nothing to measure.")
    held_out = read_held_out()
    if not held_out or not held_out.get(category, {}).get('test'):
        raise UserError(
            f"No test images in '{root}': it holds good images alone, and this run was trained on all of them. "
            'A new run with --config.dataset.test_fraction=0.1 keeps some for the test, to simulate anomalies on.'
        )
    examples = make_examples(inputs.load(**dataset, pinned=held_out), **synthesis)
    return {category: EvaluationSet(len(examples), lambda: examples, split='simulated', note=NOTE)}


def _open_split(builder: tfds.core.DatasetBuilder, dataset: Mapping[str, Any]) -> EvaluationSet:
    prepared.prepare(builder)
    read = functools.partial(streaming.read_split, builder, 'test', **_reading(dataset))
    return EvaluationSet(streaming.count_examples(builder, 'test'), read)


def _reading(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """How images are read, as keywords of `streaming.read_split` and `streaming.read_records`."""
    size = tuple(dataset['image_size'])
    return {'size': size, 'antialias': dataset['antialias'], 'bit_depth': dataset['bit_depth']}


def _add_normals(
    test: EvaluationSet,
    builder: tfds.core.DatasetBuilder,
    dataset: Mapping[str, Any],
    read_held_out: Callable[[], inputs.HeldOutNames | None],
    category: str,
) -> EvaluationSet:
    """The test images, with held-out normal ones before them where none of them is normal."""
    if not isinstance(builder, InPlaceBuilder) or has_normal_test(builder):
        return test
    wanted = (read_held_out() or {}).get(category, {}).get('test', [])
    if not wanted:
        return dataclasses.replace(test, note=_NO_NORMALS_NOTE)
    train = builder.records('train')
    *_, indices = split_by_names([record.filename for record in train], {'validation': [], 'test': wanted})
    normals = [train[index] for index in indices]
    return EvaluationSet(
        len(normals) + test.count,
        lambda: itertools.chain(streaming.read_records(normals, **_reading(dataset)), test.read()),
        note=_NORMALS_NOTE.format(f'{len(normals)} good image{"s" if len(normals) > 1 else ""}'),
    )


def make_examples(loaded: inputs.Inputs, **synthesis: Any) -> list[Example]:
    """The examples of the test, as `streaming.read_split` yields those of a test split.

    Args:
        loaded: has `test` images, of one category.
        **synthesis: options of `data.synthesis.example.make_example`; here no image is left clean or rotated.

    Returns:
        Every held-out image once, as it is, and as many examples (at least 64) with an anomaly.

    Raises:
        UserError: every simulated anomaly came out invisible.
    """
    (names,) = loaded.held_out_names.values()
    no_mask = np.zeros((*loaded.test.shape[1:3], 1), np.uint8)
    normals = [_example(loaded.test[index], no_mask, 0, NORMAL, name) for index, name in enumerate(names['test'])]
    count = max(_MIN_ANOMALIES, len(normals))
    # The real defects have been trained on, so finding them again would say nothing.
    always = {'anomaly_probability': 1.0, 'real_defect_probability': 0.0}
    as_it_is = {'rotation_probability': 0.0, 'quarter_turns': False, 'flips': False}
    # Twice as many as are wanted, because a few masks come out empty.
    made = pipeline.examples(
        loaded.test, loaded.textures, seed=_SEED, positions=range(2 * count), **(synthesis | always | as_it_is)
    )
    visible = np.flatnonzero(made['mask'].any(axis=(1, 2, 3)))[:count]
    if not len(visible):
        raise UserError(
            'No anomaly simulated for the test can be seen: tools/preview.py shows what config.synthesis makes.'
        )
    anomalous = [
        _example(made['augmented'][k], 255 * made['mask'][k], 1, DEFECT_TYPE, f'{DEFECT_TYPE}/{k:04}.png')
        for k in visible
    ]
    return normals + anomalous


def _example(image: np.ndarray, mask: np.ndarray, label: int, defect_type: str, filename: str) -> Example:
    return {
        'image': image,
        'mask': mask,
        'label': label,
        'defect_type': defect_type,
        'filename': filename,
        'has_mask': True,
    }
