"""Real defects to train on: which are taken, and that none of them is tested on."""

import shutil

import numpy as np
import pytest
from trees import draw_tree, write_image, write_mask

import data
from data.real_defects import load_real_defects
from draem_jax.errors import UserError


@pytest.fixture
def tests(tmp_path):
    """The data set of a run: greys from 200 on in its defective test images."""
    return [data.make_builder('folder', root=str(draw_tree(tmp_path / 'parts')))]


def test_defects_come_with_their_masks_and_good_images_are_left(tmp_path, tests):
    root = tmp_path / 'known'
    for k in range(3):
        write_image(root / 'test' / 'dent' / f'{k}.png', 30 + k)
        write_mask(root / 'ground_truth' / 'dent' / f'{k}_mask.png')
    write_image(root / 'test' / 'good' / '0.png', 99)
    write_image(root / 'train' / 'good' / '0.png', 99)
    defects = load_real_defects(str(root), (32, 64), tests)
    assert defects.shape == (3, 32, 64, 4)
    assert sorted(np.unique(defects[..., :3])) == [30, 31, 32]
    assert (defects[:, :15, :, 3] == 255).all()  # The upper half is defective.
    assert (defects[:, 17:, :, 3] == 0).all()


def test_a_defect_that_is_a_test_image_too_is_refused_whatever_its_name(tmp_path, tests):
    root = tmp_path / 'known'
    write_image(root / 'train' / 'good' / '0.png', 99)
    for number, name in enumerate(('other.png', 'copied.png')):
        write_image(root / 'test' / 'dent' / name, 60 + number)
        write_mask(root / 'ground_truth' / 'dent' / name.replace('.png', '_mask.png'))
    shutil.copy(tmp_path / 'parts' / 'test' / 'scratch' / '002.png', root / 'test' / 'dent' / 'copied.png')
    with pytest.raises(UserError, match=r"copied\.png' is a test image too: .*002\.png.*defect_root"):
        load_real_defects(str(root), (32, 32), tests)
    with pytest.raises(UserError, match='is a test image too'):
        load_real_defects(str(tmp_path / 'parts'), (32, 32), tests)


def test_defects_that_vanish_at_the_size_are_left_out_and_named_if_all_do(tmp_path, tests):
    root = tmp_path / 'known'
    write_image(root / 'train' / 'good' / '0.png', 99)
    write_image(root / 'test' / 'dent' / '0.png', 30)
    write_image(root / 'ground_truth' / 'dent' / '0_mask.png', 0)
    with pytest.raises(UserError, match=r'No mask of the 1 defects.*image_size'):
        load_real_defects(str(root), (32, 32), tests)
    write_image(root / 'test' / 'dent' / '1.png', 31)
    write_mask(root / 'ground_truth' / 'dent' / '1_mask.png')
    assert load_real_defects(str(root), (32, 32), tests)[..., 0].flat[0] == 31


def test_a_folder_without_masks_names_the_field(tmp_path, tests):
    root = tmp_path / 'known'
    write_image(root / 'train' / 'good' / '0.png', 99)
    with pytest.raises(UserError, match='defect_root'):
        load_real_defects(str(root), (32, 32), tests)
    with pytest.raises(UserError, match='defect_root'):
        load_real_defects(str(tmp_path / 'nowhere'), (32, 32), tests)
