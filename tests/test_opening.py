"""What is taken for an image: against Pillow, against the reader of files, and by hand."""

import numpy as np
import PIL.Image
import pytest
from tiny_run import photo

from draem_jax import images
from draem_jax.detection import opening
from draem_jax.errors import UserError

PICTURE = photo(12, 10)
GREY = PICTURE[..., 0]


def of_three(grey):
    return np.stack([grey] * 3, axis=-1)


@pytest.mark.parametrize(
    ('array', 'expected'),
    [
        (PICTURE, PICTURE),
        (PICTURE[::-1, :, ::-1], PICTURE[::-1, :, ::-1]),
        (GREY, of_three(GREY)),
        (GREY[..., None], of_three(GREY)),
        (np.dstack([PICTURE, np.full((12, 10), 3, np.uint8)]), PICTURE),
        (GREY > 80, of_three(np.where(GREY > 80, 255, 0))),
        (np.asfortranarray(PICTURE), PICTURE),
    ],
    ids=['RGB', 'view', 'grey', 'one channel', 'RGBA', 'bool', 'Fortran'],
)
def test_arrays(array, expected):
    opened = opening.open_picture(array)
    assert (opened.dtype, opened.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(opened, expected)


@pytest.mark.parametrize(
    ('array', 'hint'),
    [
        (np.zeros((8, 8, 3)), 'multiply by 255 and convert'),
        (np.zeros((8, 8), np.float32), 'multiply by 255 and convert'),
        (np.zeros((8, 8, 3), np.int64), 'Convert it to uint8'),
        (np.zeros((8, 8), np.uint16), 'How many bits'),
        (np.zeros((3, 8, 8), np.uint8), r'transpose\(1, 2, 0\)'),
        (np.zeros((2, 8, 8, 3), np.uint8), 'Several images come as a list'),
        (np.zeros((0, 8, 3), np.uint8), r'found uint8 \[0, 8, 3\]'),
        (np.zeros((8, 8, 2), np.uint8), r'found uint8 \[8, 8, 2\]'),
        (np.uint8(3), r'found uint8 \[\]'),
        (np.array(['a.png', 'b.png']), 'Several images come as a list'),
        (np.zeros((8, 8), complex), 'Convert it to uint8'),
    ],
)
def test_an_array_that_is_no_image_is_refused_with_the_way_out(array, hint):
    with pytest.raises(
        UserError, match=rf'^Expected an image.*found {array.dtype} .*{hint}' if '[' not in hint else hint
    ):
        opening.open_picture(array)


def test_uint16_is_taken_where_its_bits_are_known():
    twelve = np.array([[0, 2048, 4095]], np.uint16)
    np.testing.assert_array_equal(opening.open_picture(twelve, 12)[0, :, 0], [0, 128, 255])  # 127.53
    colours = np.zeros((1, 1, 3), np.uint16)
    colours[0, 0, 0] = 4095
    assert opening.open_picture(colours, 12).tolist() == [[[255, 0, 0]]]
    with pytest.raises(UserError, match='4095'):
        opening.open_picture(twelve + np.uint16(1), 12)


class OnAnotherDevice:
    def __array__(self, dtype=None, copy=None):
        raise TypeError('it lies on a GPU')


def test_what_says_it_is_an_array_and_is_none():
    with pytest.raises(UserError, match='found OnAnotherDevice, no array: it lies on a GPU'):
        opening.open_picture(OnAnotherDevice())


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV'])
def test_pillow_images_of_every_mode(mode):
    image = PIL.Image.fromarray(PICTURE)
    image = image.convert('L').convert(mode) if mode in ('LA', 'PA') else image.convert(mode)
    np.testing.assert_array_equal(opening.open_picture(image), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_a_file_that_pillow_opened_is_what_the_reader_of_files_reads(tmp_path, mode):
    path = tmp_path / 'a.png'
    if mode == 'I;16':
        PIL.Image.fromarray(GREY.astype(np.uint16) * 251).save(path)
    else:
        PIL.Image.fromarray(PICTURE).convert('L' if mode == 'LA' else 'RGB').convert(mode).save(path)
    with PIL.Image.open(path) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(opening.open_picture(image), images.read_image(path))


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pillow_images_are_turned_upright_as_files_are(tmp_path, orientation):
    path = tmp_path / 'a.png'
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(PICTURE).save(path, exif=exif)
    opened = opening.open_picture(PIL.Image.open(path))
    assert opened.shape == ((12, 10, 3) if orientation < 5 else (10, 12, 3))
    PIL.Image.fromarray(photo(16, 24)).save(tmp_path / 'a.jpg', exif=exif, quality=100, subsampling=0)
    opened = opening.open_picture(PIL.Image.open(tmp_path / 'a.jpg'))
    difference = opened.astype(int) - images.read_image(tmp_path / 'a.jpg')
    assert abs(difference).max() <= 2  # Two decoders round differently.


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_pillow_images_without_a_known_range_are_refused(mode):
    with pytest.raises(UserError, match=f"mode '{mode}', whose range is not known. Convert it"):
        opening.open_picture(PIL.Image.new(mode, (8, 8)))


def test_a_pillow_image_without_pixels_is_refused():
    with pytest.raises(UserError, match='Expected an image'):
        opening.open_picture(PIL.Image.new('RGB', (0, 8)))


def test_a_pillow_image_of_a_damaged_file_is_one_line(tmp_path):
    PIL.Image.fromarray(photo(64, 64)).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:2000])
    with pytest.raises(UserError, match="Cannot read the Pillow image of mode 'RGB': "):
        opening.open_picture(PIL.Image.open(tmp_path / 'a.png'))


def test_one_image_and_several_are_told_apart(tmp_path):
    for one in ('a.png', b'a.png', tmp_path, PIL.Image.new('L', (2, 2)), GREY, np.uint8(1), {'a.png': 1}, None, 5):
        assert not opening.is_several(one)
    for several in ([], ['a.png'], (GREY,), iter(['a.png']), {'a.png'}, {'a': 'a.png'}.values()):
        assert opening.is_several(several)
