"""What a run is tested on: the test split, or, for a folder of good images alone, some that were held out.

On those anomalies are simulated. They tell whether a training went well. How well real defects are found they do not
tell, for they are made as those of the training are.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from data import inputs, pipeline, streaming
from data.sets.builders import make_builders
from data.sets.in_place import NORMAL
from draem_jax.errors import UserError

DEFECT_TYPE = 'simulated'
NOTE = (
    'There are no test images: measured on held-out normal images and on anomalies simulated on them, which tells '
    'whether training went well, not how well real defects are found.'
)

_SEED = 2**31 - 3  # No training has it, and no validation.
_MIN_ANOMALIES = 64


@dataclasses.dataclass(frozen=True)
class Test:
    """What one category is tested on: its number of examples, a function that reads them, and how it came about."""

    count: int
    read: Callable
    split: str = 'test'
    note: str | None = None


def open_tests(dataset, synthesis, held_out):
    """What a config's data set is tested on.

    Args:
        dataset: mapping, the config's section of that name.
        synthesis: likewise.
        held_out: which images the run keeps out of training, as `Inputs.held_out_names`, or None.

    Returns:
        {category: Test}.

    Raises:
        UserError: a category has no test images, and none were held out.
    """
    builders = make_builders(dataset['name'], dataset['category'], dataset['root'], dataset['options'])
    tests = {}
    for category, builder in builders.items():
        streaming.prepare(builder)
        read = functools.partial(
            streaming.read_split, builder, 'test', tuple(dataset['image_size']), antialias=dataset['antialias']
        )
        tests[category] = Test(streaming.count_examples(builder, 'test'), read)
    root = dataset['root']
    without = [category for category, test in tests.items() if not test.count]
    if not without:
        return tests
    if len(tests) > 1:
        raise UserError(f"No test images of {', '.join(without)} in '{root}', so there is nothing to measure.")
    if not held_out or not held_out.get(dataset['category'], {}).get('test'):
        raise UserError(
            f"No test images in '{root}': it holds good images alone, and this run was trained on all of them. "
            'A new run with --config.dataset.test_fraction=0.1 keeps some for the test, to simulate anomalies on.'
        )
    examples = make_examples(inputs.load(**dataset, pinned=held_out), **synthesis)
    return {dataset['category']: Test(len(examples), lambda: examples, 'simulated', NOTE)}


def make_examples(loaded, **synthesis):
    """The examples of the test, as `streaming.read_split` yields those of a test split.

    Args:
        loaded: `inputs.Inputs`, with `test` images.
        **synthesis: options of `data.synthesis.example.make_example`; images are neither left clean nor rotated here.

    Returns:
        List of dicts: every held-out image once, as it is, and as many (at least 64) with an anomaly.
    """
    (names,) = loaded.held_out_names.values()
    normals = [
        _example(loaded.test[index], np.zeros((*loaded.test.shape[1:3], 1), np.uint8), 0, NORMAL, name)
        for index, name in enumerate(names['test'])
    ]
    count = max(_MIN_ANOMALIES, len(normals))
    always = {'anomaly_probability': 1.0, 'rotation_probability': 0.0}
    # A few masks come out empty.
    made = pipeline.examples(
        loaded.test, loaded.textures, seed=_SEED, positions=range(2 * count), **(synthesis | always)
    )
    visible = made['mask'].any(axis=(1, 2, 3)).nonzero()[0][:count]
    if not len(visible):
        raise UserError(
            'No anomaly simulated for the test can be seen: tools/preview.py shows what config.synthesis makes.'
        )
    anomalous = [
        _example(made['augmented'][k], 255 * made['mask'][k], 1, DEFECT_TYPE, f'{DEFECT_TYPE}/{k:04}.png')
        for k in visible
    ]
    return normals + anomalous


def _example(image, mask, label, defect_type, filename):
    return {
        'image': image,
        'mask': mask,
        'label': label,
        'defect_type': defect_type,
        'filename': filename,
        'has_mask': True,
    }
