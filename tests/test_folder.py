"""The `folder` and `mvtec_ad` builders: which files they take, which they refuse, and how they are found by name."""

import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

import data
from data.sets import in_place
from data.sets.folder.folder_dataset_builder import list_records
from draem_jax.errors import UserError

_LAYOUT = [
    'train/good/000.png',
    'train/good/001.png',
    'test/good/000.png',
    'test/crack/000.png',
    'test/crack/001.png',
    'ground_truth/crack/000_mask.png',
    'ground_truth/crack/001_mask.png',
]


def _make(root, names):
    """Empty files: nothing here decodes them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _names(records):
    return [record.filename for record in records]


def _masks(root, records):
    return [record.mask and pathlib.Path(record.mask).relative_to(root).as_posix() for record in records]


def test_mvtec_layout(tmp_path):
    records = list_records(_make(tmp_path, [*_LAYOUT, 'license.txt', 'ground_truth/good/000_mask.png']))
    assert list(records) == ['train', 'test']
    assert _names(records['train']) == ['train/good/000.png', 'train/good/001.png']
    assert _names(records['test']) == ['test/crack/000.png', 'test/crack/001.png', 'test/good/000.png']
    assert _masks(tmp_path, records['test']) == [
        'ground_truth/crack/000_mask.png',
        'ground_truth/crack/001_mask.png',
        None,
    ]
    assert [(record.label, record.defect_type) for record in records['test']] == [
        (1, 'crack'),
        (1, 'crack'),
        (0, 'good'),
    ]
    assert all((record.label, record.defect_type, record.mask) == (0, 'good', None) for record in records['train'])
    assert all(pathlib.Path(record.image).exists() for split in records.values() for record in split)


def test_nested_folders_upper_case_endings_dots_and_both_ways_to_name_a_mask(tmp_path):
    pairs = {
        'test/crack/camera_1/A.1.JPG': 'ground_truth/crack/camera_1/A.1_mask.PNG',
        'test/crack/camera_2/A.1.JPG': 'ground_truth/crack/camera_2/A.1.bmp',
        'test/stain/0.TIFF': 'ground_truth/stain/0.tif',
    }
    records = list_records(_make(tmp_path, ['train/good/2024/05/0.jpeg', *pairs, *pairs.values()]))
    assert _names(records['train']) == ['train/good/2024/05/0.jpeg']
    assert dict(zip(_names(records['test']), _masks(tmp_path, records['test']), strict=True)) == pairs


def test_the_case_of_a_layout_does_not_count_and_good_may_be_called_ok_or_normal(tmp_path):
    tree = [
        'Train/Good/0.png',
        'Test/OK/0.png',
        'Test/normal/1.png',
        'Test/Crack/0.png',
        'Ground_Truth/crack/0_mask.png',
    ]
    records = list_records(_make(tmp_path, tree))
    assert _names(records['train']) == ['Train/Good/0.png']
    assert {record.filename: record.defect_type for record in records['test']} == {
        'Test/Crack/0.png': 'Crack',
        'Test/OK/0.png': 'good',
        'Test/normal/1.png': 'good',
    }
    assert _masks(tmp_path, records['test']) == ['Ground_Truth/crack/0_mask.png', None, None]


@pytest.mark.parametrize('mask', ['crack/0_mask.png', 'crack/0_GT.png', 'crack/masks/0.png', 'masks/crack/0_mask.png'])
def test_a_mask_among_the_images_is_a_mask_and_no_defect(tmp_path, mask):
    names = [
        'train/good/0.png',
        'train/good/0_mask.png',
        'train/good/1_mask.png',
        'test/good/0.png',
        'test/crack/0.png',
    ]
    records = list_records(_make(tmp_path, [*names, f'test/{mask}']))
    # Whose mask would 1_mask.png be?
    assert _names(records['train']) == ['train/good/0.png', 'train/good/1_mask.png']
    assert _names(records['test']) == ['test/crack/0.png', 'test/good/0.png']
    assert _masks(tmp_path, records['test']) == [f'test/{mask}', None]


def test_several_folders_of_defects_have_masks_in_one_or_in_as_many(tmp_path):
    images = ['ok/0.png', 'bad/dent/0.png', 'rust/0.png']
    _make(tmp_path, [*images, 'marks/dent/0.png', 'marks/rust/0_mask.png', 'a/0.png', 'b/0.png'])
    for masks, expected in (('marks', ['marks/dent/0.png', 'marks/rust/0_mask.png']), ('a+b', ['a/0.png', 'b/0.png'])):
        builder = data.make_builder('folder', root=str(tmp_path), normal='ok', defects='bad/dent+rust', masks=masks)
        test = builder.records('test')
        assert {record.filename: record.defect_type for record in test} == {
            'bad/dent/0.png': 'dent',
            'rust/0.png': 'rust',
        }
        assert _masks(tmp_path, test) == expected
    with pytest.raises(UserError, match='masks names 2 folders, defects 1'):
        data.make_builder('folder', root=str(tmp_path), normal='ok', defects='rust', masks='a+b')


@pytest.mark.parametrize(
    ('options', 'expected'),
    [('mask_ids=1', [1, 0]), ('mask_ids=1+2', [1, 1]), ('mask_inverted=true', [0, 0]), ('', [1, 1])],
)
def test_options_say_how_masks_are_read(tmp_path, options, expected):
    root = _make(tmp_path, ['train/good/0.png'])
    mask = np.repeat(np.array([0, 1, 2], np.uint8), 12)[None].repeat(40, axis=0)
    for folder, name, array in (('test/dent', '0.png', mask), ('ground_truth/dent', '0_mask.png', mask)):
        (root / folder).mkdir(parents=True)
        PIL.Image.fromarray(array).save(root / folder / name)
    (builder,) = data.make_builders('folder', root=str(root), options=options).values()
    read = in_place.read(builder.records('test')[0])['mask'][0, :, 0]
    assert [int(read[18] > 127), int(read[30] > 127)] == expected
    assert (read[0] > 127) == (options == 'mask_inverted=true')


@pytest.mark.parametrize('options', ['mask_ids=a', 'mask_ids=1-2', 'mask_inverted=maybe', 'all_good=true,normal=ok'])
def test_options_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(UserError, match=options.partition('=')[0]):
        data.make_builders('folder', root=str(_make(tmp_path, _LAYOUT)), options=options)


def test_hidden_files_are_passed_over(tmp_path):
    hidden = ['train/good/._000.png', 'test/.DS_Store', 'test/crack/Thumbs.db', 'test/.cache/0.png']
    assert list_records(_make(tmp_path, _LAYOUT)) == list_records(_make(tmp_path, hidden))


def test_order_is_that_of_the_names_and_not_of_the_file_system(tmp_path):
    names = [f'train/good/{name}.png' for name in ('b', '10', 'B', '9', 'a/0', 'a-0', 'é')]
    assert _names(list_records(_make(tmp_path, names))['train']) == sorted(names)


def test_defect_type_without_any_mask_has_none(tmp_path):
    records = list_records(_make(tmp_path, [*_LAYOUT, 'test/stain/0.png', 'test/stain/1.png']))
    assert [record.has_mask for record in records['test']] == [True, True, True, False, False]


@pytest.mark.parametrize('left', [['000_mask.png'], ['000-gt.png', '001-gt.png']], ids=['one missing', 'misnamed'])
def test_defect_type_with_some_masks_must_have_them_all(tmp_path, left):
    names = [name for name in _LAYOUT if not name.startswith('ground_truth')]
    _make(tmp_path, names + [f'ground_truth/crack/{name}' for name in left])
    first = '001' if '000_mask.png' in left else '000'
    with pytest.raises(UserError, match=rf"No mask for '.*crack/{first}\.png'.*ground_truth/crack/{first}_mask\.png"):
        list_records(tmp_path)


@pytest.mark.parametrize('empty', [[], ['test/good/.DS_Store']])
def test_without_test_images_there_is_no_test_split(tmp_path, empty):
    assert list(list_records(_make(tmp_path, ['train/good/0.png', *empty]))) == ['train']


@pytest.mark.parametrize('names', [['0.png', '1.jpg'], ['camera/line/0.png', 'camera/line/1.jpg'], ['OK/0.png']])
def test_a_folder_of_images_in_one_place_is_all_training_images(tmp_path, names):
    records = list_records(_make(tmp_path, [*names, 'notes.txt']))
    assert list(records) == ['train']
    assert _names(records['train']) == names


# Files, and the option that says which of them are good.
_SEVERAL = {
    'flat': (
        ['normal/0.png', 'normal/1.png', 'abnormal/0.png', 'mask/0.png'],
        'normal=normal,defects=abnormal,masks=mask',
    ),
    'ok and ng': (['OK/0.png', 'NG/0.png'], 'normal=OK,defects=NG'),
    'with masks': (['good/0.png', 'ng/0.png', 'ground_truth/0.png'], 'normal=good,defects=ng,masks=ground_truth'),
    'below': (
        ['images/Good/0.png', 'images/dent/0.png', 'images/rust/0.png'],
        'normal=images/Good,defects=images/dent+images/rust',
    ),
    'dates': (['2024-01/0.png', '2024-02/0.png'], 'all_good=true'),
    'beside': (['0.png', 'monday/1.jpg', 'monday/late/2.jpg'], 'all_good=true'),
}


@pytest.mark.parametrize(('names', 'option'), _SEVERAL.values(), ids=list(_SEVERAL))
def test_images_in_several_folders_are_refused_with_the_option_that_fits(tmp_path, names, option):
    _make(tmp_path, names)
    with pytest.raises(UserError, match=rf'several folders: .*options={re.escape(option)} ') as caught:
        data.make_builders('folder', root=str(tmp_path))
    folder = os.path.dirname(names[0])
    number = sum(os.path.dirname(name) == folder for name in names)
    assert (f"{number} in '{folder}'" if folder else f'{number} directly in it') in str(caught.value)
    (builder,) = data.make_builders('folder', root=str(tmp_path), options=option).values()
    expected = names if option == 'all_good=true' else [name for name in names if os.path.dirname(name) == folder]
    assert _names(builder.records('train')) == sorted(expected)


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['test/good/0.png'], r"No images under '.*train/good'.*Found in '.*': 'test'"),
        (['train/0.png'], r"No images under '.*train/good'.*Found in '.*train': '0\.png'"),
        (['train/good/notes.txt'], r"No images under '.*train/good'.*'notes\.txt'"),
        ([*_LAYOUT, 'test/0.png'], r"test/0\.png' has no defect type"),
        ([f'screw/{name}' for name in _LAYOUT], r"holds the data set 'screw'.*--config\.dataset\.category"),
        (['good/0.png', 'crack/0.png'], r"1 in 'crack', 1 in 'good'.*one folder too deep"),
        (['NG/0.png', 'NG/1.png'], r"All 2 images .* lie in 'NG', which does not sound like good ones"),
        (['0.png', '0_mask.png', '1.png'], r"0_mask\.png' is named as the mask of '.*0\.png'"),
        ([*_LAYOUT, 'Train/good/7.png'], r"holds both 'Train' and 'train'"),
        (['notes.txt'], r'No images .*Found: 1 other file'),
        ([], 'no files at all'),
    ],
    ids=[
        'no train',
        'no good',
        'no images',
        'no defect type',
        'above',
        'below',
        'only defects',
        'mask beside',
        'two layouts',
        'no pictures',
        'empty',
    ],
)
def test_other_trees_are_refused_in_one_line(tmp_path, names, message):
    with pytest.raises(UserError, match=message) as caught:
        list_records(str(_make(tmp_path, names)))
    assert '\n' not in str(caught.value)


_NAMED = {'normal': 'ok', 'normal_test': 'ok_test', 'defects': 'bad', 'masks': 'marks'}
_NAMED_FILES = ['ok/0.png', 'ok/line_2/1.JPG', 'ok_test/0.png', 'bad/0.png', 'bad/dent/1.png', 'bad/rust/2.png']


def test_folders_named_by_options(tmp_path):
    _make(tmp_path, [*_NAMED_FILES, 'marks/0.bmp', 'marks/dent/1_mask.png', 'notes/0.png'])
    builder = data.make_builder('folder', root=str(tmp_path), **_NAMED)
    assert _names(builder.records('train')) == ['ok/0.png', 'ok/line_2/1.JPG']
    test = builder.records('test')
    assert {record.filename: record.defect_type for record in test} == {
        'bad/0.png': 'bad',
        'bad/dent/1.png': 'dent',
        'bad/rust/2.png': 'rust',
        'ok_test/0.png': 'good',
    }
    assert _masks(tmp_path, test) == ['marks/0.bmp', 'marks/dent/1_mask.png', None, None]
    assert [record.has_mask for record in test] == [True, True, False, True]


def test_only_the_folder_of_good_images_must_be_named(tmp_path):
    _make(tmp_path, _NAMED_FILES)
    assert list(data.make_builder('folder', root=str(tmp_path), normal='ok').info.splits) == ['train']
    assert list(data.make_builder('folder', root=str(tmp_path), normal='ok', defects='bad').info.splits) == [
        'train',
        'test',
    ]


def test_options_survive_pickling(tmp_path):
    builder = data.make_builder('folder', root=str(_make(tmp_path, _NAMED_FILES)), normal='ok', defects='bad')
    assert pickle.loads(pickle.dumps(builder)).records('train+test') == builder.records('train+test')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'defects': 'bad'}, r'option normal'),
        ({'normal': 'okay'}, r"No images under '.*okay', named by normal='okay'\. Found in '.*': 'bad', 'marks', 'ok'"),
        ({'normal': 'ok', 'masks': 'marks'}, r"masks='marks' without defects"),
        ({'normal': 'ok', 'defects': 'ok/line_2'}, r"defects='ok/line_2' lies in normal='ok'"),
        ({'normal': 'ok', 'normal_test': './ok/'}, r'would count twice'),
        ({'normal': 'ok', 'defects': '../bad'}, r"defects='\.\./bad': expected a folder below"),
        ({'normal': 'ok', 'defects': 'bad', 'masks': 'marks'}, r"No mask under '.*marks' belongs to an image"),
    ],
)
def test_wrong_folder_options_are_refused_in_one_line(tmp_path, options, message):
    _make(tmp_path, [*_NAMED_FILES, 'marks/7.png', 'marks/scratch/8.png'])
    if 'masks' in options:  # Images directly in 'bad' would each want a mask.
        (tmp_path / 'bad' / '0.png').unlink()
    with pytest.raises(UserError, match=message) as caught:
        data.make_builder('folder', root=str(tmp_path), **options)
    assert '\n' not in str(caught.value)


def test_missing_root_is_refused_with_what_lies_there(tmp_path):
    _make(tmp_path, ['mvtec/screw/train/good/0.png'])
    with pytest.raises(UserError, match=r"No folder '.*bottle/train'. Found in '.*mvtec': 'screw'"):
        list_records(f'{tmp_path}/mvtec/bottle/train')


def test_make_builder_finds_data_sets_by_name(tmp_path):
    _make(tmp_path, [f'screw/{name}' for name in _LAYOUT])
    by_root = data.make_builder('folder', root=str(tmp_path / 'screw'))
    by_category = data.make_builder('folder', 'screw', str(tmp_path))
    mvtec = data.make_builder('mvtec_ad', 'screw', str(tmp_path))
    assert by_root.records('train+test') == by_category.records('train+test') == mvtec.records('train+test')
    assert {split: info.num_examples for split, info in mvtec.info.splits.items()} == {'train': 2, 'test': 3}


def test_make_builder_lists_the_names_and_categories_there_are(tmp_path):
    with pytest.raises(UserError, match=r"No data set 'mvtec'\. Known: .*folder, .*mvtec_ad"):
        data.make_builder('mvtec')
    with pytest.raises(UserError, match=r"no category 'bolt'\. Known: bottle, cable, .*zipper"):
        data.make_builder('mvtec_ad', 'bolt', str(tmp_path))
    with pytest.raises(UserError, match=r'--config\.dataset\.root'):
        data.make_builder('folder')


def test_mvtec_ad_has_its_fifteen_categories():
    assert len(tfds.builder_cls('mvtec_ad').builder_configs) == 15


def test_tfds_load_reads_the_files_where_they_lie(tmp_path):
    _make(tmp_path, [f'screw/{name}' for name in _LAYOUT])
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    for path in (tmp_path / 'screw').rglob('*.png'):
        PIL.Image.fromarray(picture).save(path)
    before = sorted(tmp_path.rglob('*'))
    train = tfds.load('mvtec_ad/screw', data_dir=tmp_path, split='train[50%:]')
    (example,) = tfds.as_numpy(train)
    np.testing.assert_array_equal(example['image'], picture)
    assert example['filename'] == b'train/good/001.png'
    test = tfds.load('folder', data_dir=tmp_path / 'screw')['test']
    assert [example['defect_type'] for example in tfds.as_numpy(test)] == [b'crack', b'crack', b'good']
    assert sorted(tmp_path.rglob('*')) == before


def test_importing_data_and_listing_files_needs_neither_tensorflow_nor_jax(tmp_path):
    _make(tmp_path, _LAYOUT)
    code = (
        'import sys, data\n'
        f'assert len(data.make_builder("folder", root={str(tmp_path)!r}).records("test")) == 3\n'
        'assert not {"tensorflow", "jax", "flax"} & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=pathlib.Path(__file__).parent.parent)
