"""VisA: twelve categories of objects, with a mask for every defect.

    ROOT/split_csv/1cls.csv                     columns object, split, label, image, mask: paths below ROOT
    ROOT/<category>/Data/Images/Normal/0000.JPG
    ROOT/<category>/Data/Images/Anomaly/000.JPG
    ROOT/<category>/Data/Masks/Anomaly/000.png  values are numbers of defects: anomalous is what is above 0

References:
    Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation, ECCV 2022.
    https://github.com/amazon-science/spot-diff
"""

import csv
import io
import os
import pathlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from data.sets.in_place import NORMAL, InPlaceBuilder, MaskReading, Record, Records, make_record, what_is_near
from draem_jax import storage
from draem_jax.errors import UserError

CATEGORIES = (
    'candle',
    'capsules',
    'cashew',
    'chewinggum',
    'fryum',
    'macaroni1',
    'macaroni2',
    'pcb1',
    'pcb2',
    'pcb3',
    'pcb4',
    'pipe_fryum',
)
SPLITS = ('1cls', '2cls_highshot', '2cls_fewshot')
_DEFECTIVE = 'anomaly'
_TYPES = {'normal': NORMAL, _DEFECTIVE: _DEFECTIVE}


class Builder(InPlaceBuilder):
    """One category: `tfds.load('visa/candle', data_dir=<the folder that holds 'candle' and 'split_csv'>)`.

    The option `split` names the table: '1cls' (the default), '2cls_highshot' or '2cls_fewshot'. The last two train on
    defective images as well; these are in the split 'train_defective', because DRAEM takes all of 'train'.
    """

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]  # noqa: RUF012

    def _find_records(self, root: str, *, split: str = '1cls') -> Records:
        if split not in SPLITS:
            raise UserError(f"'visa' has no split '{split}'. Known: {', '.join(SPLITS)}.")
        above, category = os.path.split(root)
        table = os.path.join(above, 'split_csv', f'{split}.csv')
        if not storage.is_file(table):
            raise UserError(
                f"No table '{table}'. {what_is_near(table)} Is --config.dataset.root the folder that holds 'split_csv' "
                f"and '{category}'?"
            )
        records: Records = {'train': [], 'train_defective': [], 'test': []}
        for row in _rows(table):
            if row['object'] == category:
                record = _record(root, above, row, table)
                part = 'train_defective' if row['split'] == 'train' and record.label else row['split']
                records[part].append(record)
        if not records['train']:
            raise UserError(f"'{table}' has no normal training images of '{category}'. Is it VisA's own table?")
        return {part: sorted(rows, key=lambda record: record.filename) for part, rows in records.items() if rows}


def _rows(table: str) -> Iterator[dict[str, str]]:
    """The lines of a split table as dicts; an error names the number of a line that is not as expected."""
    columns = ['object', 'split', 'label', 'image', 'mask']
    reader = csv.DictReader(io.StringIO(storage.read_bytes(table).decode('utf-8-sig'), newline=''))
    if reader.fieldnames != columns:
        actual = ', '.join(reader.fieldnames or ['nothing'])
        raise UserError(f"'{table}': expected the columns {', '.join(columns)}, found {actual}.")
    for row in reader:
        if row['split'] not in ('train', 'test') or row['label'] not in _TYPES or not row['image']:
            raise UserError(
                f"'{table}', line {reader.line_num}: expected split train or test, label normal or {_DEFECTIVE}, "
                f"and an image; found '{row['split']}', '{row['label']}', '{row['image']}'."
            )
        yield row


def _record(root: str, above: str, row: dict[str, str], table: str) -> Record:
    image = os.path.join(above, row['image'])
    defect_type = _TYPES[row['label']]
    mask = os.path.join(above, row['mask']) if defect_type != NORMAL and row['mask'] else None
    if defect_type != NORMAL and mask is None:
        raise UserError(f"'{table}' names no mask for '{row['image']}', which is labelled {row['label']}.")
    for path in filter(None, (image, mask)):
        if pathlib.PurePath(root) not in pathlib.PurePath(path).parents or not storage.is_file(path):
            raise UserError(
                f"No file '{path}', which '{table}' names. {what_is_near(path)} Is VisA unpacked completely?"
            )
    return make_record(root, image, mask=mask, defect_type=defect_type, mask_reading=MaskReading(holds_ids=True))
