"""Every data set that is read in place, on a tiny tree in its true layout: counts, labels, masks, what is refused."""

import csv
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

import data
from data.sets.in_place import read
from data.sets.magnetic_tile.magnetic_tile_dataset_builder import group_frames, split_groups
from draem_jax import images
from draem_jax.errors import UserError

_SIZE = (12, 9)  # (height, width)
_DEFECT = np.zeros(_SIZE, np.uint8)
_DEFECT[2:5, 3:7] = 1


def draw(path, values=None):
    """Writes an image of one grey, or the values as a mask, in the format that the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((*_SIZE, 3), 77, np.uint8) if values is None else values
    PIL.Image.fromarray(values).save(path)


def draw_palette(path, indices):
    """Writes a palette image: index 0 black, 1 dark red, 2 light blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 90, 0, 0, 100, 150, 255])
    picture.save(path)


def draw_visa(root):
    rows = []
    for split, label, number in [('train', 'normal', '0000'), ('test', 'normal', '0002'), ('train', 'normal', '0001')]:
        draw(root / f'pcb1/Data/Images/Normal/{number}.JPG')
        rows.append(('pcb1', split, label, f'pcb1/Data/Images/Normal/{number}.JPG', ''))
    draw(root / 'pcb1/Data/Images/Anomaly/000.JPG')
    draw(root / 'pcb1/Data/Images/Anomaly/001.JPG')
    two_defects = _DEFECT.copy()
    two_defects[8:10, :4] = 5
    draw(root / 'pcb1/Data/Masks/Anomaly/000.png', two_defects)
    draw_palette(root / 'pcb1/Data/Masks/Anomaly/001.png', 2 * _DEFECT)
    for number in ('000', '001'):
        image, mask = f'pcb1/Data/Images/Anomaly/{number}.JPG', f'pcb1/Data/Masks/Anomaly/{number}.png'
        rows.append(('pcb1', 'test', 'anomaly', image, mask))
    rows.append(('candle', 'train', 'normal', 'candle/Data/Images/Normal/0000.JPG', ''))  # of another category
    write_table(root, '1cls', rows)
    few = [('pcb1', 'train', *row[2:]) if row[3].endswith('Anomaly/000.JPG') else row for row in rows]
    write_table(root, '2cls_fewshot', few)


def write_table(root, name, rows):
    (root / 'split_csv').mkdir(exist_ok=True)
    with open(root / 'split_csv' / f'{name}.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('object', 'split', 'label', 'image', 'mask'), *rows])


def draw_dagm(root):
    for part, names, defective in (('Train', ('0576', '0577', '0578'), '0577'), ('Test', ('0001', '0002'), '0002')):
        for name in names:
            draw(root / f'Class3/{part}/{name}.PNG')
        draw(root / f'Class3/{part}/Label/{defective}_label.PNG', 255 * _DEFECT)
        (root / f'Class3/{part}/Label/Labels.txt').write_text('1\n')


def draw_btad(root):
    for name in ('train/ok/0000.bmp', 'train/ok/0001.png', 'test/ok/0000.bmp', 'test/ko/0000.bmp', 'test/ko/0001.png'):
        draw(root / '03' / name)
    draw(root / '03/ground_truth/ko/0000.png', 255 * _DEFECT)
    draw(root / '03/ground_truth/ko/0001.bmp', 255 * _DEFECT)


def draw_mpdd(root):
    for name in ('train/good/000.png', 'test/good/000.png', 'test/parts_mismatch/000.png', 'test/scratches/000.PNG'):
        draw(root / 'tubes' / name)
    draw(root / 'tubes/ground_truth/parts_mismatch/000_mask.png', 255 * _DEFECT)
    draw(root / 'tubes/ground_truth/scratches/000_mask.png', (65535 * _DEFECT.astype(int)).astype(np.uint16))


def draw_ksdd2(root):
    for name, mask in {
        'train/10000': 0 * _DEFECT,
        'train/10001': 255 * _DEFECT,
        'train/10002': 0 * _DEFECT,
        'test/20000': 0 * _DEFECT,
        'test/20001': 255 * _DEFECT,
    }.items():
        draw(root / f'{name}.png')
        draw(root / f'{name}_GT.png', mask)
    (root / 'split_weakly_0.pyb').touch()


def draw_magnetic_tile(root):
    for experiment, number in [(1, 1000), (1, 1100), (1, 5000), (2, 1150), (2, 9000), (2, 9100)]:
        draw(root / f'MT_Free/Imgs/exp{experiment}_num_{number}.jpg')
        draw(root / f'MT_Free/Imgs/exp{experiment}_num_{number}.png', 0 * _DEFECT)
    draw(root / 'MT_Blowhole/Imgs/exp1_num_7.jpg')
    draw(root / 'MT_Blowhole/Imgs/exp1_num_7.png', _DEFECT > 0)
    draw(root / 'MT_Uneven/Imgs/exp3_num_1.JPG')
    draw(root / 'MT_Uneven/Imgs/exp3_num_1.png', _DEFECT > 0)
    draw(root / 'MT_Uneven/Imgs/exp3_num_2.jpg')
    draw(root / 'MT_Uneven/Imgs/exp3_num_2.png', 0 * _DEFECT)
    (root / 'README.md').touch()


def draw_ucsd_ped2(root):
    for clip, number in [('Train/Train001', 1), ('Train/Train001', 2), ('Train/Train002', 1)]:
        draw(root / f'{clip}/{number:03}.tif')
    (root / 'Train/Train001/._001.tif').touch()
    for clip, number, mask in [('Test001', 1, 0 * _DEFECT), ('Test001', 2, _DEFECT), ('Test002', 1, 255 * _DEFECT)]:
        draw(root / f'Test/{clip}/{number:03}.tif')
        draw(root / f'Test/{clip}_gt/{number:03}.bmp', mask)


# {name: (what draws it, its category, the names of the training images, {name of a test image: defect type})}.
TREES = {
    'visa': (
        draw_visa,
        'pcb1',
        ['Data/Images/Normal/0000.JPG', 'Data/Images/Normal/0001.JPG'],
        {
            'Data/Images/Anomaly/000.JPG': 'anomaly',
            'Data/Images/Anomaly/001.JPG': 'anomaly',
            'Data/Images/Normal/0002.JPG': 'good',
        },
    ),
    'dagm': (
        draw_dagm,
        'Class3',
        ['Train/0576.PNG', 'Train/0578.PNG'],
        {'Test/0001.PNG': 'good', 'Test/0002.PNG': 'defect'},
    ),
    'btad': (
        draw_btad,
        '03',
        ['train/ok/0000.bmp', 'train/ok/0001.png'],
        {'test/ko/0000.bmp': 'ko', 'test/ko/0001.png': 'ko', 'test/ok/0000.bmp': 'good'},
    ),
    'mpdd': (
        draw_mpdd,
        'tubes',
        ['train/good/000.png'],
        {
            'test/good/000.png': 'good',
            'test/parts_mismatch/000.png': 'parts_mismatch',
            'test/scratches/000.PNG': 'scratches',
        },
    ),
    'ksdd2': (
        draw_ksdd2,
        '',
        ['train/10000.png', 'train/10002.png'],
        {'test/20000.png': 'good', 'test/20001.png': 'defect'},
    ),
    'ucsd_ped2': (
        draw_ucsd_ped2,
        '',
        ['Train/Train001/001.tif', 'Train/Train001/002.tif', 'Train/Train002/001.tif'],
        {'Test/Test001/001.tif': 'good', 'Test/Test001/002.tif': 'anomaly', 'Test/Test002/001.tif': 'anomaly'},
    ),
}
NAMES = [*TREES, 'magnetic_tile']


@pytest.fixture
def make(tmp_path):
    """A function that draws a data set by name and returns its builder."""

    def make_one(name, **options):
        drawing, category, *_ = TREES.get(name, (draw_magnetic_tile, ''))
        drawing(tmp_path)
        return data.make_builder(name, category, str(tmp_path), **options)

    return make_one


@pytest.mark.parametrize('name', TREES)
def test_training_images_are_the_normal_ones(make, name):
    records = make(name).records('train')
    assert [record.filename for record in records] == TREES[name][2]
    assert {(record.label, record.defect_type, record.mask) for record in records} == {(0, 'good', None)}


@pytest.mark.parametrize('name', TREES)
def test_test_images_have_their_defect_type_and_label(make, name):
    records = make(name).records('test')
    assert {record.filename: record.defect_type for record in records} == TREES[name][3]
    assert all(record.label == (record.defect_type != 'good') for record in records)
    assert [record.filename for record in records] == sorted(TREES[name][3])


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'visa'])
def test_mask_pixels_are_255_on_the_defect_and_0_elsewhere(make, name):
    examples = [read(record) for record in make(name).records('test')]
    assert any(example['label'] for example in examples)
    for example in examples:
        assert example['has_mask']
        np.testing.assert_array_equal(example['mask'][..., 0], 255 * _DEFECT * example['label'])


def test_visa_mask_pixels_are_anomalous_whatever_the_number_of_the_defect(make):
    numbered, palette, _ = (read(record) for record in make('visa').records('test'))
    both = 255 * _DEFECT
    both[8:10, :4] = 255
    np.testing.assert_array_equal(numbered['mask'][..., 0], both)
    np.testing.assert_array_equal(palette['mask'][..., 0], 255 * _DEFECT)


@pytest.mark.parametrize('name', NAMES)
def test_tfds_load_reads_every_example_and_writes_nothing(make, tmp_path, name):
    builder = make(name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    category = TREES.get(name, (None, ''))[1]
    loaded = tfds.load(f'{name}/{category}' if category else name, data_dir=tmp_path)
    for split in ('train', 'test'):
        names = [example['filename'].decode() for example in tfds.as_numpy(loaded[split])]
        assert names == [record.filename for record in builder.records(split)]
    assert not builder.is_prepared()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


@pytest.mark.parametrize(
    ('name', 'options', 'filename'),
    [
        ('visa', {'split': '2cls_fewshot'}, 'Data/Images/Anomaly/000.JPG'),
        ('dagm', {'supervised': True}, 'Train/0577.PNG'),
        ('ksdd2', {'supervised': True}, 'train/10001.png'),
    ],
)
def test_defective_training_images_are_a_split_of_their_own(make, name, options, filename):
    builder = make(name, **options)
    (record,) = builder.records('train_defective')
    assert (record.filename, record.label) == (filename, 1)
    assert read(record)['mask'].any()
    assert [record.filename for record in builder.records('train')] == TREES[name][2]


def test_options_reach_a_builder_through_tfds_load(make, tmp_path):
    make('dagm')
    loaded = tfds.load('dagm/Class3', data_dir=tmp_path, builder_kwargs={'supervised': True})
    assert sorted(loaded) == ['test', 'train', 'train_defective']


@pytest.mark.parametrize(
    ('name', 'number'),
    [('visa', 12), ('dagm', 10), ('btad', 3), ('mpdd', 6), ('ksdd2', 0), ('magnetic_tile', 0), ('ucsd_ped2', 0)],
)
def test_number_of_categories(name, number):
    assert len(tfds.builder_cls(name).builder_configs) == number


def frames(*names):
    return [f'MT_Free/Imgs/exp{name}.jpg' for name in names]


def test_neighbouring_frames_of_one_experiment_are_a_group():
    paths = frames('1_num_900', '2_num_1000', '1_num_1201', '1_num_1050')
    assert group_frames(paths) == [
        frames('1_num_900', '1_num_1050'),  # 150 apart.
        frames('1_num_1201'),  # 151 apart.
        frames('2_num_1000'),  # Close, but of another experiment.
    ]


@pytest.mark.parametrize('seed', range(5))
def test_no_two_neighbours_of_magnetic_tile_fall_on_different_sides(seed):
    numbers = np.cumsum(np.random.default_rng(0).integers(1, 400, 500))
    paths = frames(*(f'{1 + k % 3}_num_{number}' for k, number in enumerate(numbers)))
    training, test = split_groups(group_frames(paths), seed)
    assert sorted(training + test) == sorted(paths)
    assert 0.2 <= len(test) / len(paths) < 0.25

    def place(path):
        experiment, number = pathlib.PurePath(path).stem.removeprefix('exp').split('_num_')
        return int(experiment), int(number)

    for one in map(place, training):
        for other in map(place, test):
            assert one[0] != other[0] or abs(one[1] - other[1]) > 150


def test_another_seed_is_another_split_and_the_same_seed_the_same():
    groups = group_frames(frames(*(f'1_num_{1000 * k}' for k in range(50))))
    assert split_groups(groups, 0) == split_groups(groups[::-1], 0)
    assert split_groups(groups, 0) != split_groups(groups, 1)


def test_magnetic_tile_tests_on_all_defects_with_a_mask_and_leaves_out_those_without(make):
    builder = make('magnetic_tile')
    defects = {record.filename: record.defect_type for record in builder.records('test') if record.label}
    assert defects == {'MT_Blowhole/Imgs/exp1_num_7.jpg': 'blowhole', 'MT_Uneven/Imgs/exp3_num_1.JPG': 'uneven'}
    normals = [record.filename for record in builder.records('train+test') if not record.label]
    assert len(normals) == len(set(normals)) == 6


@pytest.mark.parametrize(
    ('name', 'removed', 'message'),
    [
        ('visa', 'split_csv/1cls.csv', r"No table '.*1cls\.csv'.*Found in '.*split_csv': '2cls_fewshot\.csv'"),
        ('visa', 'pcb1/Data/Images/Normal/0001.JPG', r"No file '.*0001\.JPG'.*1cls\.csv"),
        ('visa', 'pcb1/Data/Masks/Anomaly/001.png', r"No file '.*Masks/Anomaly/001\.png'"),
        ('dagm', 'Class3/Test/Label/0002_label.PNG', r"No images under '.*Test/Label'"),
        ('dagm', 'Class3/Train/0577.PNG', r"0577_label\.PNG' belongs to no image"),
        ('btad', '03/ground_truth/ko/0001.bmp', r"No mask for '.*test/ko/0001\.png'"),
        ('mpdd', 'tubes/train/good/000.png', r"No images under '.*train/good'"),
        ('ksdd2', 'train/10002_GT.png', r"No mask for '.*train/10002\.png'.*10002_GT\.png"),
        ('ucsd_ped2', 'Test/Test001_gt/001.bmp', r"No mask for '.*Test001/001\.tif'.*Test001_gt/001\.bmp"),
        ('magnetic_tile', 'MT_Uneven/Imgs/exp3_num_1.png', r'No masks for .*MT_Uneven/Imgs/exp3_num_1\.JPG'),
    ],
)
def test_a_missing_file_is_named(make, tmp_path, name, removed, message):
    make(name)
    (tmp_path / removed).unlink()
    with pytest.raises(UserError, match=message) as caught:
        data.make_builder(name, TREES.get(name, (None, ''))[1], str(tmp_path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', NAMES)
def test_a_wrong_root_is_told_what_lies_there(tmp_path, name):
    (tmp_path / 'elsewhere').mkdir()
    with pytest.raises(UserError, match=r"Found in '.*': 'elsewhere'") as caught:
        data.make_builder(name, TREES.get(name, (None, ''))[1], str(tmp_path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([('pcb1', 'val', 'normal', 'a.JPG', '')], r'line 2: expected split train or test.*val'),
        ([('pcb1', 'train', 'bad', 'a.JPG', '')], r'line 2: .*label normal or anomaly.*bad'),
        ([('pcb2', 'train', 'normal', 'a.JPG', '')], r"no normal training images of 'pcb1'"),
        ([('pcb1', 'test', 'anomaly', 'a.JPG', '')], r"no mask for 'a\.JPG'"),
        ([('pcb1', 'train', 'normal', 'pcb2/a.JPG', '')], r"No file '.*pcb2/a\.JPG'"),
    ],
)
def test_a_split_table_that_is_not_as_visa_has_it_is_refused(tmp_path, rows, message):
    write_table(tmp_path, '1cls', rows)
    with pytest.raises(UserError, match=message):
        data.make_builder('visa', 'pcb1', str(tmp_path))


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('visa', {'split': '3cls'}, r"no split '3cls'\. Known: 1cls, 2cls_highshot, 2cls_fewshot"),
        ('ksdd2', {'supervise': True}, r"'ksdd2' has no option 'supervise'\. Known: supervised"),
        ('mpdd', {'seed': 1}, r"'mpdd' has no option 'seed'\. Known: none"),
    ],
)
def test_an_unknown_option_is_told_which_there_are(make, name, options, message):
    with pytest.raises(UserError, match=message):
        make(name, **options)


def test_a_data_set_without_categories_refuses_one(tmp_path):
    with pytest.raises(UserError, match=r"'ksdd2' has no category 'metal'\. Known: none"):
        data.make_builder('ksdd2', 'metal', str(tmp_path))


# The real data sets, where they lie beside the repository.
_SHARED = pathlib.Path(__file__).resolve().parent.parent.parent / 'shared' / 'datasets'


def counts(builder):
    test = builder.records('test')
    normal = sum(not record.label for record in test)
    return len(builder.records('train')), normal, len(test) - normal, sum(record.mask is not None for record in test)


@pytest.mark.skipif(not (_SHARED / 'mvtec_ad' / 'screw').is_dir(), reason='MVTec AD screw is not there')
def test_screw_has_its_published_counts():
    assert counts(data.make_builder('mvtec_ad', 'screw', str(_SHARED / 'mvtec_ad'))) == (320, 41, 119, 119)


@pytest.mark.skipif(not (_SHARED / 'mtd' / 'magnetic_tile').is_dir(), reason='the magnetic tiles are not there')
def test_magnetic_tiles_as_a_folder_have_their_counts():
    assert counts(data.make_builder('folder', 'magnetic_tile', str(_SHARED / 'mtd'))) == (759, 193, 388, 388)


@pytest.mark.skipif(not (_SHARED / 'dtd' / 'images').is_dir(), reason='DTD is not there')
def test_textures_have_their_count():
    assert len(images.list_images(str(_SHARED / 'dtd' / 'images'))) == 1200
