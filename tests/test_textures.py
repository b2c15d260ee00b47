"""The images of a folder as textures: which are taken, their size, and what is refused."""

import numpy as np
import pytest
from drawn_tree import greys
from trees import draw_textures, write_image

from data.textures import load_textures
from draem_jax import images
from draem_jax.errors import UserError

SIZE = (32, 64)


def test_textures_are_found_however_nested_and_take_the_size_asked_for(tmp_path):
    textures = load_textures(str(draw_textures(tmp_path)), SIZE)
    assert textures.dtype == np.uint8
    assert textures.shape == (5, *SIZE, 3)
    assert greys(textures) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(('limit', 'expected'), [(0, 5), (2, 2), (3, 3), (9, 5)])
def test_fewer_textures_are_spread_over_all_of_them(tmp_path, limit, expected):
    taken = greys(load_textures(str(draw_textures(tmp_path)), SIZE, limit=limit))
    assert len(set(taken)) == expected
    assert (taken[0], taken[-1]) == (10, 50)


def test_textures_smaller_than_the_images_are_enlarged(tmp_path):
    write_image(tmp_path / 'small.png', 90, size=(3, 5))
    assert greys(load_textures(str(tmp_path), SIZE)) == [90]


def test_unreadable_textures_are_passed_over_and_the_others_decoded_once(tmp_path, monkeypatch, capsys):
    draw_textures(tmp_path)
    (tmp_path / 'a_broken.png').write_bytes(b'no image')
    opened = []
    read_image = images.read_image
    monkeypatch.setattr(images, 'read_image', lambda path: opened.append(path) or read_image(path))
    assert greys(load_textures(str(tmp_path), SIZE, skip_unreadable=True)) == [10, 20, 30, 40, 50]
    assert len(opened) == len(set(opened)) == 6
    assert '1 of 6 files were passed over' in capsys.readouterr().out


def test_where_no_file_can_be_read_that_is_said(tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'Of 1 files none can be read.*broken\.png'):
        load_textures(str(tmp_path), SIZE, skip_unreadable=True)
