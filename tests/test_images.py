"""The image reader, held against Pillow and against formulas."""

import io
import json
import pathlib
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from draem_jax import decoding, images
from draem_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
_RNG = np.random.default_rng(0)
_RGB = _RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
_GREY = _RGB[..., 0]
_ALPHA = _RGB[..., 1]
_ALL_16_BIT_VALUES = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def _draw(mode):
    """A picture in one of Pillow's modes."""
    if mode == 'LA':
        return PIL.Image.fromarray(np.dstack([_GREY, _ALPHA]))
    if mode == 'RGBA':
        return PIL.Image.fromarray(np.dstack([_RGB, _ALPHA]))
    if mode == 'P':
        return PIL.Image.fromarray(_RGB).quantize(16)
    return PIL.Image.fromarray(_RGB).convert(mode)


@pytest.mark.parametrize(
    ('mode', 'name', 'options'),
    [
        *((mode, 'image.png', {}) for mode in ('1', 'P', 'L', 'LA', 'RGB', 'RGBA')),
        ('P', 'image.png', {'transparency': 0}),
        *((mode, 'image.BMP', {}) for mode in ('1', 'P', 'L', 'RGB')),
        *((mode, 'image.tif', {}) for mode in ('1', 'P', 'L', 'RGB')),
        ('RGB', 'image.TIFF', {'compression': 'tiff_lzw'}),
        ('RGB', 'image.webp', {'lossless': True}),
        ('RGBA', 'image.webp', {'lossless': True, 'exact': True}),
    ],
)
def test_lossless_files_are_read_as_pillow_reads_them(tmp_path, mode, name, options):
    picture = _draw(mode)
    picture.save(tmp_path / name, **options)
    image = images.read_image(tmp_path / name)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.asarray(picture.convert('RGB')))


@pytest.mark.parametrize(
    ('mode', 'options'),
    [('L', {}), ('RGB', {}), ('RGB', {'progressive': True}), ('RGB', {'quality': 30}), ('CMYK', {})],
)
def test_jpeg_files_are_read_as_pillow_reads_them(tmp_path, mode, options):
    _draw(mode).save(tmp_path / 'image.JPG', **options)
    expected = np.asarray(PIL.Image.open(tmp_path / 'image.JPG').convert('RGB'))
    # Two builds of libjpeg may round differently; CMYK to RGB is a product of two values.
    np.testing.assert_allclose(images.read_image(tmp_path / 'image.JPG').astype(int), expected.astype(int), atol=2)


@pytest.mark.parametrize('name', ['image.png', 'image.tif'])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, name):
    PIL.Image.fromarray(_ALL_16_BIT_VALUES).save(tmp_path / name)
    expected = np.round(_ALL_16_BIT_VALUES.astype(np.float64) / 257)
    for channel in np.moveaxis(images.read_image(tmp_path / name), -1, 0):
        np.testing.assert_array_equal(channel, expected)


def test_16_bit_colour_keeps_its_channel_order(tmp_path):
    blue_first = np.zeros((4, 5, 3), np.uint16)
    blue_first[..., 0] = 65535
    blue_first[..., 2] = 257 * 7
    (tmp_path / 'image.png').write_bytes(cv2.imencode('.png', blue_first)[1].tobytes())
    np.testing.assert_array_equal(images.read_image(tmp_path / 'image.png')[0, 0], [7, 0, 255])


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('name', ['image.jpg', 'image.png'])
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(_RGB).save(tmp_path / name, exif=exif)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / name)))
    np.testing.assert_allclose(images.read_image(tmp_path / name).astype(int), expected.astype(int), atol=2)


@pytest.mark.parametrize('name', ['image.png', 'image.jpg', 'image.bmp', 'image.tif', 'image.webp'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.999])
def test_truncated_file_is_refused_in_one_line_that_names_it(tmp_path, capfd, name, share):
    PIL.Image.fromarray(_RGB).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=name) as caught:
        images.read_image(tmp_path / name)
    assert '\n' not in str(caught.value)
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize(('data', 'reason'), [(b'', 'empty'), (b'These are not pixels. ' * 20, 'not an 8 or 16 bit')])
def test_file_without_a_picture_is_refused(tmp_path, data, reason):
    (tmp_path / 'image.png').write_bytes(data)
    with pytest.raises(UserError, match=rf'image\.png.*{reason}'):
        images.read_image(tmp_path / 'image.png')


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'absent\.png.*No such file'):
        images.read_image(tmp_path / 'absent.png')
    with pytest.raises(UserError, match='directory'):
        images.read_image(tmp_path)


def _png_header(width, height):
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    chunks = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    return b'\x89PNG\r\n\x1a\n' + chunks + b'\0\0\0\0IEND\xaeB`\x82'


def _bmp_header(width, height):
    return b'BM' + struct.pack('<IHHIIiiHHIIiiII', 54, 0, 0, 54, 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)


def _jpeg_header(width, height):
    comment = b'\xff\xfe' + struct.pack('>H', 13) + b'\xff\xc0' + b'\0' * 9  # Looks like a frame of 0 x 0 pixels.
    frame = b'\xff\xc2' + struct.pack('>HBHHB', 17, 8, height, width, 3) + b'\0' * 9
    return b'\xff\xd8' + comment + frame + b'\xff\xda\0\2'


def _tiff_header(width, height):
    tags = {256: width, 257: height, 273: 8, 279: 1}
    entries = [struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items()]
    return b'II*\0' + struct.pack('<IH', 8, len(entries)) + b''.join(entries) + bytes(4)


_HEADERS = pytest.mark.parametrize(
    'header', [_png_header, _bmp_header, _jpeg_header, _tiff_header], ids=['png', 'bmp', 'jpeg', 'tiff']
)


@_HEADERS
def test_header_that_claims_too_many_pixels_is_refused_before_decoding(tmp_path, monkeypatch, header):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    (tmp_path / 'image').write_bytes(header(60_000, 50_000))
    with pytest.raises(UserError, match=r"image': 60000 x 50000 pixels are more than"):
        images.read_image(tmp_path / 'image')


@_HEADERS
def test_the_largest_size_is_decoded_although_pillow_would_refuse_it(tmp_path, monkeypatch, recwarn, header):
    decoded = np.full((2, 3, 3), 7, np.uint8)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: decoded)
    monkeypatch.setattr(decoding, '_find_damage', lambda data: None)  # There is nothing behind the header.
    (tmp_path / 'image').write_bytes(header(16384, 16384))
    with pytest.raises(PIL.Image.DecompressionBombError):
        PIL.Image.open(io.BytesIO(header(16384, 16384)))
    np.testing.assert_array_equal(images.read_image(tmp_path / 'image'), decoded)
    (tmp_path / 'image').write_bytes(header(16384, 16385))
    with pytest.raises(UserError, match='more than'):
        images.read_image(tmp_path / 'image')
    assert not recwarn.list


def test_damaged_metadata_is_passed_over_in_silence(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x010F] = 'a maker with a name'
    file = io.BytesIO()
    PIL.Image.fromarray(_RGB).save(file, 'JPEG', exif=exif)
    data = file.getvalue().replace(struct.pack('>HHI', 0x010F, 2, 20), struct.pack('>HHI', 0x010F, 2, 65535))
    with pytest.warns(UserWarning, match='Tag data larger than file|Truncated File Read'):  # As versions put it.
        PIL.Image.open(io.BytesIO(data))
    (tmp_path / 'image.jpg').write_bytes(data)
    code = 'import sys; from draem_jax import images; print(images.read_image(sys.argv[1]).shape)'
    command = [sys.executable, '-c', code, str(tmp_path / 'image.jpg')]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ('(20, 31, 3)\n', '')


def test_mask_is_the_largest_colour_channel(tmp_path):
    _draw('RGB').save(tmp_path / 'mask.png')
    expected = np.rint(_RGB.max(axis=-1) * (255 / _RGB.max()))
    np.testing.assert_array_equal(images.read_mask(tmp_path / 'mask.png'), expected)


@pytest.mark.parametrize(
    ('low', 'high', 'dtype'),
    [(0, 1, 'uint8'), (0, 2, 'uint8'), (0, 100, 'uint8'), (0, 255, 'uint16'), (0, 65535, 'uint16')],
)
def test_mask_of_two_values_reaches_255_however_it_was_written(tmp_path, low, high, dtype):
    anomalous = _GREY > 200
    PIL.Image.fromarray(np.where(anomalous, high, low).astype(dtype)).save(tmp_path / 'mask.png')
    np.testing.assert_array_equal(images.read_mask(tmp_path / 'mask.png'), np.where(anomalous, 255, 0))


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_mask_of_defect_numbers_is_255_wherever_there_is_one(tmp_path, dtype):
    numbers = (_GREY % 4).astype(dtype)
    PIL.Image.fromarray(numbers).save(tmp_path / 'mask.png')
    mask = images.read_mask(tmp_path / 'mask.png', holds_ids=True)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(numbers > 0, 255, 0))


def test_1_bit_mask_and_empty_mask(tmp_path):
    anomalous = _GREY > 200
    PIL.Image.fromarray(anomalous).save(tmp_path / 'mask.png')
    np.testing.assert_array_equal(images.read_mask(tmp_path / 'mask.png'), 255 * anomalous)
    PIL.Image.fromarray(anomalous & False).save(tmp_path / 'empty.png')
    assert images.read_mask(tmp_path / 'empty.png').max() == 0


def _bilinear(image, size):
    """Bilinear resizing with half-pixel centres and the edge continued, in float64."""
    for axis, wanted in enumerate(size):
        given = image.shape[axis]
        position = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        below = np.minimum(position.astype(int), given - 2)
        weight = np.expand_dims(position - below, tuple(range(1, image.ndim - axis)))
        image = np.take(image, below, axis) * (1 - weight) + np.take(image, below + 1, axis) * weight
    return image


@pytest.mark.parametrize('size', [(40, 62), (13, 17), (7, 50), (1, 1)])
@pytest.mark.parametrize('shape', [(20, 31), (20, 31, 1), (20, 31, 3)])
def test_resize_is_bilinear_with_half_pixel_centres(size, shape):
    image = _RNG.integers(0, 256, shape).astype(np.float32)
    resized = images.resize(image, size)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, _bilinear(image.astype(np.float64), size), atol=1e-2)
    levels = images.resize(image.astype(np.uint8), size)
    np.testing.assert_allclose(levels, _bilinear(image.astype(np.float64), size), atol=1)


def test_resize_with_antialias_averages_the_area_and_only_where_it_shrinks():
    image = _RGB[:, :30]
    blocks = image.reshape(10, 2, 10, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images.resize(image, (10, 10), antialias=True), blocks, atol=0.51)
    np.testing.assert_array_equal(images.resize(image, (40, 45), antialias=True), images.resize(image, (40, 45)))
    rows = image.reshape(10, 2, 30, 3).mean(axis=1)
    np.testing.assert_allclose(images.resize(image, (10, 60), antialias=True), _bilinear(rows, (10, 60)), atol=1.5)


def test_resize_to_the_same_size_returns_the_input():
    assert images.resize(_RGB, (20, 31)) is _RGB
    assert images.resize(_RGB, (20, 31), antialias=True) is _RGB


@pytest.mark.parametrize('image', [_RGB, _GREY, _ALL_16_BIT_VALUES], ids=['rgb', 'grey', '16 bit'])
def test_written_png_is_what_pillow_reads(tmp_path, image):
    images.write_png(tmp_path / 'image.png', image)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / 'image.png')), image)


@pytest.mark.parametrize('image', [_RGB.astype(np.float32), _RGB.astype(np.uint16), _RGB[..., :2], _RGB[None]])
def test_write_png_refuses_other_arrays(tmp_path, image):
    with pytest.raises(ValueError, match='Expected uint8'):
        images.write_png(tmp_path / 'image.png', image)


def test_list_images_finds_nested_files_of_every_ending_and_no_hidden_ones(tmp_path):
    wanted = ['B.PNG', 'a-b/0.jpeg', 'a/0.jpg', 'a/deep/er/0.Tif', 'a/x.bmp', 'b.tiff', 'z.webp']
    hidden = ['.DS_Store', 'Thumbs.db', '._B.png', '.thumbnails/0.png', 'a/notes.txt', 'png']
    for name in wanted + hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert images.list_images(str(tmp_path)) == [f'{tmp_path}/{name}' for name in sorted(wanted)]
    assert images.list_images(f'{tmp_path}/') == [f'{tmp_path}/{name}' for name in sorted(wanted)]


def test_list_images_passes_over_what_our_scripts_wrote_and_says_so_once(tmp_path, capsys):
    config = json.dumps(dict.fromkeys(('schema', 'dataset', 'synthesis', 'model', 'loss', 'training'), 1))
    own = {'run/config.json': config, 'out/predictions.jsonl': '', 'results/results.json': '', 'results/scores.csv': ''}
    others = {'camera/config.json': '{"exposure": 5}', 'list/config.json': '[1]', 'broken/config.json': '{'}
    inputs = ['0.png', 'camera/0.png', 'list/0.png', 'broken/0.png', 'a/b/0.png']
    outputs = ['run/evaluation/4/report/pictures/0.jpg', 'out/overlays/0.png', 'results/best.png', 'run/0.png']
    for name, text in {**own, **others, **dict.fromkeys(inputs + outputs, '')}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for _ in range(2):
        assert images.list_images(tmp_path) == [f'{tmp_path}/{name}' for name in sorted(inputs)]
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 3
    assert all(any(f"passed over '{tmp_path}/{name}'" in note for note in notes) for name in ('run', 'out', 'results'))


def test_images_beside_a_run_count_and_its_pictures_do_not(tmp_path):
    config = dict.fromkeys(('schema', 'dataset', 'synthesis', 'model', 'loss', 'training'), 1)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    for name in ('0.png', 'good/0.png', 'evaluation/4/best.png', 'predictions/overlays/0.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert images.list_images(tmp_path) == [f'{tmp_path}/0.png', f'{tmp_path}/good/0.png']


@pytest.mark.parametrize('bits', [9, 10, 12, 14, 16])
def test_values_of_fewer_bits_fill_the_range_where_that_is_said(tmp_path, bits):
    values = np.arange(2**bits, dtype=np.uint16).reshape(8, -1)
    images.write_png(tmp_path / 'image.png', values)
    expected = np.rint(values * (255 / (2**bits - 1)))
    for name in ('image.png', 'image.tif'):
        PIL.Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(images.read_image(tmp_path / name, bit_depth=bits)[..., 1], expected)
    _draw('RGB').save(tmp_path / 'plain.png')
    np.testing.assert_array_equal(images.read_image(tmp_path / 'plain.png', bit_depth=bits), _RGB)


def test_a_value_of_more_bits_than_said_is_refused(tmp_path):
    images.write_png(tmp_path / 'image.png', np.full((4, 4), 4096, np.uint16))
    with pytest.raises(UserError, match=r"image\.png' holds the value 4096, more than 12 bits have"):
        images.read_image(tmp_path / 'image.png', bit_depth=12)


def test_list_images_follows_links_and_counts_a_folder_once(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / '0.png').touch()
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'link').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'root')
    assert images.list_images(tmp_path / 'root') == [str(tmp_path / 'root' / 'link' / '0.png')]


def test_list_images_refuses_a_folder_that_it_may_not_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, 'Permission denied', str(folder))

    monkeypatch.setattr('os.scandir', refuse)
    with pytest.raises(UserError, match=r'Cannot read folder .*Permission denied'):
        images.list_images(tmp_path, allow_none=True)


def test_list_images_refuses_a_missing_and_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"No folder .*absent'"):
        images.list_images(tmp_path / 'absent')
    with pytest.raises(UserError, match='no files at all'):
        images.list_images(tmp_path)
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(UserError, match=r"1 other file.*notes\.txt'"):
        images.list_images(tmp_path)
    assert images.list_images(tmp_path, allow_none=True) == []
    assert images.list_images(tmp_path / 'absent', allow_none=True) == []


def test_a_jpeg_is_nearly_what_was_written_and_refuses_the_rest(tmp_path):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = (200, 40, 40)  # A red edge, which halved colour resolution would smear.
    images.write_jpeg(tmp_path / 'a.jpg', image)
    assert np.abs(images.read_image(tmp_path / 'a.jpg').astype(int) - image).max() < 12
    for wrong in (image[..., 0], image.astype(np.float32)):
        with pytest.raises(ValueError, match='Expected uint8'):
            images.write_jpeg(tmp_path / 'b.jpg', wrong)
