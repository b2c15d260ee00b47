"""Pictures: colours in order, untouched where all is normal, every image in its cell."""

import cv2
import numpy as np
import pytest

from draem_jax import images, pictures


def make_image(height=40, width=30):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def lightness(colors):
    return cv2.cvtColor(colors[None], cv2.COLOR_RGB2Lab)[0, :, 0].astype(int)


def test_heat_grows_brighter_with_the_map():
    colors = pictures.heat(np.linspace(0, 1, 256)[None])[0]
    assert (np.diff(lightness(colors)) >= 0).all()
    assert colors[0].max() < 10
    # Inferno ends in a pale yellow: red and green high, blue lower. BGR by mistake would end in pale blue.
    assert colors[-1][0] > 240 > colors[-1][2]


def test_heat_clips_and_shows_what_is_no_number():
    colors = pictures.heat([[-1, 0, 1, 2, np.nan]])[0]
    np.testing.assert_array_equal(colors[0], colors[1])
    np.testing.assert_array_equal(colors[2], colors[3])
    np.testing.assert_array_equal(colors[4], [128, 128, 128])


def test_overlay_leaves_normal_pixels_alone_and_covers_others():
    image = make_image()
    anomaly_map = np.zeros(image.shape[:2])
    anomaly_map[5, 5] = 1
    picture = pictures.overlay(image, anomaly_map, alpha=1.0)
    np.testing.assert_array_equal(picture[5, 5], pictures.heat(anomaly_map)[5, 5])
    picture[5, 5] = image[5, 5]
    np.testing.assert_array_equal(picture, image)


def test_contour_is_the_border_of_the_mask():
    image = np.zeros((20, 20, 3), np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:12, 4:16] = True
    drawn = pictures.contour(image, mask).any(axis=-1)
    inner = np.zeros_like(mask)
    inner[6:11, 5:15] = True
    np.testing.assert_array_equal(drawn, mask & ~inner)
    assert not image.any()


@pytest.mark.parametrize(
    'image',
    [
        np.full((128, 128, 3), 200, np.uint8),
        np.full((128, 128, 1), 200, np.uint8),
        np.full((128, 128), 200, np.uint8),
        np.full((128, 128), 200 / 255, np.float32),
    ],
)
def test_sheet_takes_images_of_any_kind(image):
    picture = pictures.sheet([('', [image])], [''], cell_size=128)
    assert (picture == 200).all(axis=-1).sum() == 128 * 128


def test_sheet_places_every_image_once():
    colors = np.random.default_rng(0).choice(200, (3, 2, 3), replace=True).astype(np.uint8)
    rows = [
        (f'row {row}', [np.broadcast_to(color, (256, 256, 3)) for color in pair]) for row, pair in enumerate(colors)
    ]
    picture = pictures.sheet(rows, ['left', 'right'], cell_size=256)
    corners = {}
    for row in range(3):
        for column in range(2):
            places = np.argwhere((picture == colors[row, column]).all(axis=-1))
            top, left = places.min(axis=0)
            np.testing.assert_array_equal(picture[top : top + 256, left : left + 256], rows[row][1][column])
            corners[row, column] = top, left
    assert corners[0, 0][0] == corners[0, 1][0] < corners[1, 0][0] < corners[2, 0][0]
    assert corners[0, 0][1] == corners[2, 0][1] < corners[0, 1][1]


def test_small_images_are_enlarged_pixel_by_pixel():
    image = make_image(32, 32)
    picture = pictures.sheet([('', [image])], [''], cell_size=64)
    enlarged = np.kron(image, np.ones((4, 4, 1), np.uint8))
    height, width = picture.shape[:2]
    assert any(
        np.array_equal(picture[top : top + 128, left : left + 128], enlarged)
        for top in range(height - 127)
        for left in range(width - 127)
    )


def test_long_caption_stays_inside_and_keeps_both_ends():
    image = np.zeros((128, 128, 3), np.uint8)
    short = pictures.sheet([('a', [image])], ['one'])
    text = 'first' + ' long' * 100 + ' last\n\udcff'
    long = pictures.sheet([(text, [image])], ['one'])
    assert long.shape == short.shape
    ink = (long != 250).any(axis=-1)
    assert not ink[:, :8].any()
    assert not ink[:, -8:].any()


def test_sheet_leaves_missing_images_empty_and_refuses_too_many():
    image = np.zeros((256, 256), bool)
    one, two = pictures.sheet([('', [image, None])], ['a', 'b']), pictures.sheet([('', [image])], ['a', 'b'])
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match='2 images for 1 columns'):
        pictures.sheet([('', [image, image])], ['a'])
    with pytest.raises(ValueError, match='at least one row'):
        pictures.sheet([], ['a'])


def test_sheet_is_saved_as_it_is(tmp_path):
    picture = pictures.sheet([('caption', [make_image()])], ['input'])
    images.write_png(tmp_path / 'sheet.png', picture)
    np.testing.assert_array_equal(images.read_image(tmp_path / 'sheet.png'), picture)


def test_rows_are_the_surest_the_wrong_and_the_doubtful():
    #                   normal: right, wrong, near     defective: right, wrong, near, missed most
    scores = np.array([0.00, 0.02, 0.90, 0.14, 0.99, 0.80, 0.16, 0.10, 0.01])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    chosen = pictures.choose_rows(scores, labels, 0.15, 2)
    assert chosen == {'worst': [8, 2], 'best': [4, 0], 'doubtful': [6, 3]}


@pytest.mark.parametrize('labels', [np.zeros(6), np.ones(6)])
def test_rows_of_one_class_fill_up(labels):
    chosen = pictures.choose_rows(np.arange(6) / 10, labels, -1.0 if labels.all() else 1.0, 3)
    assert chosen['best'] == ([5, 4, 3] if labels.all() else [0, 1, 2])
    assert chosen['worst'] == []
    assert len(chosen['doubtful']) == 3


def test_a_score_that_is_no_number_comes_first_among_the_worst():
    chosen = pictures.choose_rows([0.9, np.nan, 0.1, 0.2], [0, 0, 0, 1], 0.5, 2)
    assert chosen == {'worst': [1, 0], 'best': [2], 'doubtful': [3]}
    assert pictures.choose_rows([], [], 0.5, 2) == {'worst': [], 'best': [], 'doubtful': []}


def test_a_strip_holds_every_panel_in_its_place():
    image, reconstruction = make_image(), make_image()[::-1]
    anomaly_map = np.zeros(image.shape[:2])
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[:9] = 255
    strip = pictures.strip(image, reconstruction, anomaly_map, mask)
    panels = pictures.cut_strip(strip)
    assert len(panels) == len(pictures.STRIP_PANELS)
    expected = [image, reconstruction, image, pictures.heat(anomaly_map), np.repeat(mask[..., None], 3, axis=2)]
    for panel, picture in zip(panels, expected, strict=True):
        np.testing.assert_array_equal(panel, picture)
    assert (pictures.cut_strip(pictures.strip(image, image, anomaly_map, None))[4] == 128).all()


def test_a_strip_of_large_images_is_scaled_down():
    image = np.zeros((600, 300, 3), np.uint8)
    assert pictures.strip(image, image, image[..., 0], None).shape == (512, 5 * 256, 3)
