"""The check of a data set: a good one has no findings, and each thing that is wrong is found once, and named."""

import shutil

import numpy as np
import PIL.Image
import pytest
from trees import draw_tree, write_image, write_mask

import data
from data import inspection


@pytest.fixture
def root(tmp_path):
    return draw_tree(tmp_path / 'part', train=3, good=2, scratched=2)


def check(root, **options):
    return inspection.check(data.make_builder('folder', root=str(root), **options))


def only_finding(root):
    (finding,) = check(root).findings
    assert '\n' not in finding.text
    return finding


def test_a_good_data_set_is_counted_and_nothing_is_found(root):
    write_image(root / 'train/good/wide.png', 50, size=(20, 64))
    report = check(root)
    assert report.findings == []
    assert report.counts == {('train', 'good'): (4, 0), ('test', 'good'): (2, 0), ('test', 'scratch'): (2, 2)}
    assert report.sizes == {(40, 36): 7, (20, 64): 1}


@pytest.mark.parametrize(
    'name', ['train/good/001.png', 'test/good/001.png', 'test/scratch/001.png', 'ground_truth/scratch/001_mask.png']
)
def test_an_unreadable_file_is_an_error_that_names_it(root, name):
    (root / name).write_bytes((root / name).read_bytes()[:-20])
    finding = only_finding(root)
    assert (finding.severity, finding.kind) == ('error', 'unreadable file')
    assert name in finding.text


def test_all_unreadable_files_are_found_and_the_rest_is_read(root):
    for name in ('train/good/000.png', 'train/good/002.png', 'test/good/000.png'):
        (root / name).write_bytes(b'no picture')
    report = check(root)
    assert report.number('error') == len(report.findings) == 3
    assert report.counts['train', 'good'] == (3, 0)
    assert sum(report.sizes.values()) == 4


def test_a_mask_of_another_size_is_an_error_with_both_sizes(root):
    write_mask(root / 'ground_truth/scratch/001_mask.png', size=(40, 30))
    finding = only_finding(root)
    assert (finding.severity, finding.kind) == ('error', 'mask of another size')
    assert '001_mask.png' in finding.text
    assert '30 x 40' in finding.text
    assert '36 x 40' in finding.text


def test_an_empty_mask_of_a_defect_is_a_warning(root):
    PIL.Image.fromarray(np.zeros((40, 36), np.uint8)).save(root / 'ground_truth/scratch/000_mask.png')
    finding = only_finding(root)
    assert (finding.severity, finding.kind) == ('warning', 'empty mask')
    assert '000_mask.png' in finding.text


def test_a_defect_type_without_masks_is_a_warning(root):
    shutil.rmtree(root / 'ground_truth')
    finding = only_finding(root)
    assert (finding.severity, finding.kind) == ('warning', 'no masks')
    assert "'scratch'" in finding.text


@pytest.mark.parametrize(
    ('one', 'other', 'severity', 'kind'),
    [
        ('train/good/000.png', 'test/good/007.png', 'error', 'in training and test'),
        ('train/good/000.png', 'test/good/007.bmp', 'error', 'in training and test'),
        ('test/good/000.png', 'test/stain/007.png', 'error', 'normal and defective'),
        ('train/good/000.png', 'train/good/007.png', 'warning', 'twice in a split'),
        ('test/good/000.png', 'test/good/007.png', 'warning', 'twice in a split'),
    ],
)
def test_the_same_picture_twice(root, one, other, severity, kind):
    (root / other).parent.mkdir(exist_ok=True)
    PIL.Image.open(root / one).save(root / other)
    (finding,) = (finding for finding in check(root).findings if finding.kind != 'no masks')
    assert (finding.severity, finding.kind) == (severity, kind)
    assert one in finding.text
    assert other in finding.text


def test_pictures_of_the_same_bytes_in_another_shape_are_not_the_same(root):
    write_image(root / 'test/good/turned.png', 0, size=(36, 40))  # The grey of train/good/000.png.
    assert check(root).findings == []


@pytest.mark.parametrize(
    ('removed', 'kind'),
    [
        (['test', 'ground_truth'], 'nothing to test on'),
        (['test/good'], 'no normal test images'),
        (['test/scratch', 'ground_truth'], 'nothing to tell apart'),
    ],
)
def test_a_test_set_that_measures_nothing_is_a_warning(root, removed, kind):
    for folder in removed:
        shutil.rmtree(root / folder)
    finding = only_finding(root)
    assert (finding.severity, finding.kind) == ('warning', kind)


def test_a_drawn_data_set_is_checked_through_tfds(tmp_path, monkeypatch):
    from data.sets.simulated import drawing

    contents = [('a.png', None, 0), ('b.png', 'hole', 1), ('c.png', 'hole', 1)]
    monkeypatch.setattr(drawing, 'contents', lambda category, split: contents if split == 'test' else contents[:1])
    builder = data.make_builder('simulated', 'metal', str(tmp_path))
    builder.download_and_prepare()
    report = inspection.check(builder)
    assert report.counts == {('train', 'good'): (1, 0), ('test', 'good'): (1, 0), ('test', 'hole'): (2, 2)}
    assert {finding.kind for finding in report.findings} == {'in training and test', 'twice in a split'}


def test_files_that_nobody_reads_are_counted_by_folder_and_named(root):
    write_mask(root / 'ground_truth/scratch/007_mask.png')
    for k in range(2):
        write_mask(root / f'ground_truth/dent/{k}_mask.png')
    write_image(root / 'train/bad/000.png', 9)
    for name in ('000.jfif', '001.GIF', '002.heic', 'notes.txt'):
        (root / 'train/good' / name).write_bytes(b'')
    found = {(finding.kind, finding.text.partition(',')[0]) for finding in check(root).findings}
    assert found == {
        ('images not used', f"1 in '{root}/ground_truth/scratch'"),
        ('images not used', f"2 in '{root}/ground_truth/dent'"),
        ('images not used', f"1 in '{root}/train/bad'"),
        ('format not read', f"3 in '{root}/train/good'"),
    }
    assert all(finding.severity == 'warning' for finding in check(root).findings)


@pytest.mark.parametrize(('factor', 'bit_depth'), [(16, 12), (32, 12), (64, 14)])
def test_16_bit_images_of_fewer_bits_are_found_unless_it_is_said(tmp_path, factor, bit_depth):
    for k in range(3):
        path = tmp_path / 'parts' / f'{k}.png'
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((40, 36), (k + 125) * factor - k, np.uint16)).save(path)
    builder = data.make_builder('folder', root=str(tmp_path / 'parts'))
    kinds = {finding.kind: finding.text for finding in inspection.check(builder).findings}
    assert set(kinds) == {'dark 16-bit images', 'nothing to test on'}
    assert f'--config.dataset.bit_depth={bit_depth} ' in kinds['dark 16-bit images']
    assert [f.kind for f in inspection.check(builder, bit_depth=bit_depth).findings] == ['nothing to test on']
    errors = inspection.check(builder, bit_depth=bit_depth - 2).findings[:3]
    assert [finding.severity for finding in errors] == ['error'] * 3


def test_a_mask_without_a_pixel_at_the_size_of_the_network_is_found(root):
    mask = np.zeros((40, 36), np.uint8)
    mask[20, 20:22] = 255
    PIL.Image.fromarray(mask).save(root / 'ground_truth/scratch/001_mask.png')
    builder = data.make_builder('folder', root=str(root))
    assert inspection.check(builder, size=(64, 64)).findings == []
    (finding,) = inspection.check(builder, size=(8, 8)).findings
    assert (finding.severity, finding.kind) == ('warning', 'mask that vanishes')
    assert 'scratch/001_mask.png' in finding.text


@pytest.mark.parametrize(
    ('values', 'kind'),
    [([0, 0, 1, 3], 'mask of several values'), ([255, 0, 255, 255], 'mask mostly defective')],
)
def test_a_mask_that_can_be_read_in_several_ways_is_remarked_upon(root, values, kind):
    mask = np.repeat(np.array(values, np.uint8), 9)[None].repeat(40, axis=0)
    PIL.Image.fromarray(mask).save(root / 'ground_truth/scratch/001_mask.png')
    assert (only_finding(root).severity, only_finding(root).kind) == ('warning', kind)
    assert 'scratch/001_mask.png' in only_finding(root).text
