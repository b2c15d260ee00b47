"""The contact sheet of training examples."""

import cv2
import numpy as np
import pytest
from trees import draw_textures, draw_tree

from configs import default
from draem_jax.errors import UserError
from tools import preview


@pytest.fixture
def config(tmp_path):
    config = default.get_config()
    config.dataset.root = str(draw_tree(tmp_path / 'tree'))
    config.dataset.texture_root = str(draw_textures(tmp_path / 'textures'))
    config.dataset.image_size = (32, 32)
    return config


def test_a_sheet_with_a_row_for_each_example_is_written(config, tmp_path, capsys):
    heights = []
    for rows in (1, 3):
        preview.preview(config, str(tmp_path / f'{rows}.png'), rows=rows)
        heights.append(cv2.imread(str(tmp_path / f'{rows}.png')).shape[0])
    assert heights[1] > 2 * heights[0]
    assert '8 normal images of 32 x 32' in capsys.readouterr().out


def test_without_a_visible_anomaly_nothing_is_written_and_it_is_said(config, tmp_path, capsys):
    config.synthesis.anomaly_probability = 0.0
    preview.preview(config, str(tmp_path / 'sheet.png'))
    assert 'nothing to show' in capsys.readouterr().out
    assert not (tmp_path / 'sheet.png').exists()


def test_a_folder_that_is_not_there_is_named_before_anything_is_read(config, tmp_path):
    config.dataset.root = 'nowhere'
    with pytest.raises(UserError, match='--out='):
        preview.preview(config, str(tmp_path / 'missing' / 'sheet.png'))


def test_a_sheet_in_the_data_set_would_be_read_as_an_image(config):
    for folder in (config.dataset.root, config.dataset.texture_root):
        with pytest.raises(UserError, match=r'--out=.*sheet\.png lies in .*Take another place'):
            preview.preview(config, f'{folder}/sheet.png')


def test_figures_tell_clean_empty_and_visible_apart():
    anomalous = np.array([False] * 4 + [True] * 6)
    areas = np.array([0.0] * 5 + [0.02, 0.04, 0.04, 0.04, 0.06])
    line = preview.describe(anomalous, areas)
    assert 'Of 10 examples 4 are clean on purpose, 1 have a mask that came out empty' in line
    assert '4.0 % of the image in the median' in line
