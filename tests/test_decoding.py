"""Files that a decoder reads to the end although they are damaged, and headers that ask for too much."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest

from draem_jax import decoding, images
from draem_jax.errors import UserError

_RNG = np.random.default_rng(0)
_PICTURE = cv2.resize(_RNG.integers(0, 256, (12, 15, 3), dtype=np.uint8), (300, 240), interpolation=cv2.INTER_CUBIC)

_FORMATS = {
    'jpeg': ('JPEG', {}),
    'progressive jpeg': ('JPEG', {'progressive': True}),
    'jpeg with restarts': ('JPEG', {'restart_marker_rows': 1}),
    'jpeg of full colour': ('JPEG', {'subsampling': 0}),
    'lzw tiff': ('TIFF', {'compression': 'tiff_lzw'}),
    'deflated tiff': ('TIFF', {'compression': 'tiff_deflate'}),
    'packed tiff': ('TIFF', {'compression': 'packbits'}),
    'plain tiff': ('TIFF', {}),
    'big tiff': ('TIFF', {'compression': 'tiff_lzw', 'big_tiff': True}),
    'png': ('PNG', {}),
    'bmp': ('BMP', {}),
    'webp': ('WEBP', {}),
}


def encode(name, mode='RGB', picture=_PICTURE):
    file_format, options = _FORMATS[name]
    file = io.BytesIO()
    PIL.Image.fromarray(picture).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def spoil(data, length=64):
    """Zeros in the middle third of a file, where the pixels are."""
    start = len(data) // 3
    return data[:start] + bytes(length) + data[start + length :]


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize('name', [name for name in _FORMATS if 'jpeg' in name])
def test_a_jpeg_damaged_inside_is_refused_and_a_whole_one_is_not(tmp_path, capfd, name, mode):
    (tmp_path / 'whole.jpg').write_bytes(encode(name, mode))
    expected = np.asarray(PIL.Image.open(tmp_path / 'whole.jpg').convert('RGB')).astype(int)
    assert np.abs(images.read_image(tmp_path / 'whole.jpg') - expected).mean() < 3
    (tmp_path / 'part.jpg').write_bytes(spoil(encode(name, mode)))
    with pytest.raises(UserError, match=r"Cannot read image '.*part\.jpg': its data are damaged \(.+\)"):
        images.read_image(tmp_path / 'part.jpg')
    assert capfd.readouterr().err == ''  # The decoder's own words are in the error.


@pytest.mark.parametrize('name', ['lzw tiff', 'deflated tiff', 'big tiff'])
def test_a_tiff_damaged_inside_is_refused_and_a_whole_one_is_not(tmp_path, name):
    data = encode(name)
    (tmp_path / 'whole.tif').write_bytes(data)
    np.testing.assert_array_equal(images.read_image(tmp_path / 'whole.tif'), _PICTURE)
    part = bytearray(data)
    part[len(part) // 3] ^= 0x10
    (tmp_path / 'part.tif').write_bytes(spoil(data, 512) if 'deflated' not in name else bytes(part))
    with pytest.raises(UserError, match=r"Cannot read image '.*part\.tif': its data are damaged"):
        images.read_image(tmp_path / 'part.tif')


@pytest.mark.parametrize('name', list(_FORMATS))
@pytest.mark.parametrize('keep', [0.05, 0.5, 0.95])
def test_a_file_cut_short_is_refused_in_every_format(tmp_path, name, keep):
    data = encode(name)
    (tmp_path / 'image').write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"Cannot read image '.*image': "):
        images.read_image(tmp_path / 'image')


def test_pictures_that_only_opencv_knows_are_read():
    colours = _RNG.integers(0, 65536, (20, 30, 3)).astype(np.uint16)  # Pillow has no such mode.
    for compression in (cv2.IMWRITE_TIFF_COMPRESSION_NONE, cv2.IMWRITE_TIFF_COMPRESSION_LZW):
        _, data = cv2.imencode('.tif', colours, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        np.testing.assert_array_equal(decoding.decode(data.tobytes(), 'image.tif'), colours)


@pytest.mark.parametrize('name', [name for name in _FORMATS if 'tiff' in name])
def test_a_tiff_of_more_pixels_than_allowed_is_refused_before_it_is_decoded(monkeypatch, name):
    monkeypatch.setattr(decoding, 'MAX_PIXELS', 2**16)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    monkeypatch.setattr(decoding.TiffImageFile, 'load', lambda *_: pytest.fail('decoded'))
    with pytest.raises(UserError, match=r"'image\.tif': 300 x 240 pixels are more than the 65536"):
        decoding.decode(encode(name), 'image.tif')


def test_which_formats_are_lossy(tmp_path):
    lossy = {name: decoding.is_lossy(encode(name)) for name in _FORMATS}
    assert {name for name, is_lossy in lossy.items() if is_lossy} == {'webp'} | {n for n in _FORMATS if 'jpeg' in n}
    file = io.BytesIO()
    PIL.Image.fromarray(_PICTURE).save(file, 'WEBP', lossless=True)
    assert not decoding.is_lossy(file.getvalue())
