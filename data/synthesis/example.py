"""Simulated anomalies: a normal image and a texture become one training example.

An example is a pure function of (seed, position): every number is drawn from a key made of the two, so an example does
not depend on the process, the thread, the batch or the host that makes it. Pixels are RGB in uint8 from end to end.

References:
    Zavrtanik, Kristan, Skocaj, DRAEM, ICCV 2021, section 3.3 (preset `paper`), and the authors' released code (preset
    `official`). configs/default.py holds both presets and says where they depart from their sources.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from data.banks import COLOUR, SELF, Bank
from data.synthesis import masks
from data.synthesis.draws import angle_between, between, index_below, uniform
from data.synthesis.geometry import BLACK, MIRROR, Placement, draw_turn
from data.synthesis.lookup import count_of, take
from data.synthesis.operations import LUMA, OPERATIONS, augment


def make_example(
    images: Bank | tf.Tensor,
    textures: Bank | tf.Tensor | str,
    seed: int,
    position: tf.Tensor,
    *,
    anomaly_probability: float = 0.5,
    rotation_probability: float = 0.3,
    rotation_degrees: float = 90.0,
    rotation_fill: str = BLACK,
    quarter_turns: bool = False,
    flips: bool = False,
    opacity: tuple[float, float] = (0.2, 1.0),
    operations: Sequence[str] = tuple(OPERATIONS),
    operation_count: int = 3,
    normal_patch_probability: float = 0.0,
    real_defect_probability: float = 0.0,
    mask_source: str = 'perlin',
    mask_threshold: tuple[float, float] = (0.5, 0.5),
    max_cells_log2: int = 5,
    min_cells_log2: int = 0,
    min_cell_size: int = 2,
    mask_rotation_degrees: float = 90.0,
    match_grey: bool = False,
    foreground_threshold: int = 0,
    label_correction: int = 0,
    real_defects: Bank | None = None,
    trace: bool = False,
) -> dict[str, tf.Tensor]:
    """Makes the training example at one position. The defaults are the preset `official`.

    Args:
        images: uint8 [N, H, W, 3], normal images, RGB, H and W at least 32.
        textures: uint8 [T, H, W, 3], what anomalies are made of; or COLOUR, or SELF.
        seed: with the position, the source of every draw.
        position: int64 scalar, >= 0.
        anomaly_probability: of an example getting a mask at all (a mask may come out empty).
        rotation_probability: of the normal image being rotated.
        rotation_degrees: largest rotation of the normal image, either way.
        rotation_fill: what its corners hold then, geometry.BLACK or geometry.MIRROR.
        quarter_turns, flips: of `geometry.draw_turn`, for parts that look the same from all sides.
        opacity: (lowest, highest) share of the texture inside the mask, uniform; (1, 1) switches blending off.
        operations: names out of operations.OPERATIONS.
        operation_count: how many different ones change a texture, in random order; 0 switches augmentation off.
        normal_patch_probability: of an anomaly being a patch of another normal image, as it is, and no texture.
        real_defect_probability: of an anomaly being one of `real_defects`, as it is and at its place.
        mask_source: one of masks.SOURCES: 'perlin', 'simplex', 'rectangle' (one, upright, 2 to 15 % of the image), or
            'union' (of two Perlin masks).
        mask_threshold: (lowest, highest) value above which noise is anomalous, uniform.
        max_cells_log2: the noise has 2^k cells per axis, k uniform in 0 ... max_cells_log2, drawn for each axis.
        min_cells_log2: where k begins.
        min_cell_size: in pixels, bounds k on small images: noise vanishes on its lattice, so small cells are empty.
        mask_rotation_degrees: largest rotation of the noise, either way.
        match_grey: paste only the luma of a texture into an image without colour, where colour alone would give the
            anomaly away. This is ours; neither the paper nor the authors' code does it.
        foreground_threshold: anomalies stay where the image differs from its background by more than this many levels
            of 255 (masks.foreground); 0 lets them lie anywhere, as in the paper.
        label_correction: pixels that the anomaly changes by less than this many levels of 255 leave the mask
            (masks.noticeable); 0 keeps all of them, as in the paper.
        real_defects: bank of uint8 [K, H, W, 4]: images with defects, RGB, and their masks, 0 to 255.
        trace: also return what the anomaly was made from, for people to look at; the example is the same, but slower.

    Returns:
        'image': uint8 [H, W, 3], the normal image, which is the target of the reconstruction.
        'augmented': uint8 [H, W, 3], with the anomaly.
        'mask': uint8 [H, W, 1], 1 where the anomaly is.
        With `trace` also:
        'texture' and 'augmented_texture': uint8 [H, W, 3], 0 where the example stays clean.
        'opacity': float32 scalar, 0 where the example stays clean.
        'order': int32 [operation_count], which of `operations` were applied, -1 where the example stays clean; empty
            for COLOUR, and -1 where the anomaly is a patch or a real defect.
    """
    assert images.dtype == tf.uint8, f'images are uint8, not {images.dtype}'
    H, W = images.shape[1:3]
    if isinstance(textures, str):
        assert textures in (COLOUR, SELF), f'textures are a bank, {COLOUR!r} or {SELF!r}, not {textures!r}'
        count = 0 if textures == COLOUR else operation_count
    else:
        tf.TensorShape(images.shape[1:]).assert_is_compatible_with(textures.shape[1:])
        count = operation_count

    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(position, tf.int64)])
    image_key, mask_key, texture_key, operations_key = tf.unstack(tf.random.split(key, 4))
    choice, rotation, angle, anomaly = tf.unstack(uniform(image_key, 4))
    # What is drawn besides has keys of its own, so that the other draws stay the same with and without it.
    turn_key, patch_key, defect_key = (tf.random.fold_in(key, number) for number in (1, 2, 3))
    turn: tuple[tf.Tensor, ...] = ()
    if quarter_turns or flips:
        is_square = H is not None and H == W
        turn = draw_turn(turn_key, is_square=is_square, quarter_turns=quarter_turns, flips=flips)
    degrees = angle_between(rotation_degrees, angle)
    placement = Placement(rotation < rotation_probability, degrees, rotation_fill == MIRROR, *turn)
    index = index_below(count_of(images), choice)
    given = placement.turn(take(images, index))
    image = placement.rotate(given)
    height, width = (n or tf.shape(image)[axis] for axis, n in enumerate((H, W)))

    def clean() -> list[tf.Tensor]:
        traced = [tf.zeros_like(image), tf.zeros_like(image), tf.constant(0.0), tf.fill([count], -1)] if trace else []
        return [image, tf.zeros_like(image[..., :1]), *traced]

    def anomalous() -> list[tf.Tensor]:
        mask = masks.draw_mask(
            mask_key,
            height,
            width,
            source=mask_source,
            threshold=mask_threshold,
            max_cells_log2=max_cells_log2,
            min_cells_log2=min_cells_log2,
            min_cell_size=min_cell_size,
            rotation_degrees=mask_rotation_degrees,
        )
        if foreground_threshold:
            # The foreground is found before the rotation, whose black corners would count as the object or hide it.
            mask *= placement.rotate(255 * masks.foreground(given, foreground_threshold)) // 128
        is_grey = match_grey and tf.reduce_all(image == image[..., :1])
        texture, share = _draw_texture(texture_key, textures, images, index, given, opacity)
        order, numbers = _draw_operations(operations_key, len(operations), count)
        is_patch: bool | tf.Tensor = False
        if normal_patch_probability:
            chance, *numbers_of_patch = tf.unstack(uniform(patch_key, 4))
            is_patch = chance < normal_patch_probability
            texture = tf.cond(is_patch, lambda: draw_patch(images, index, numbers_of_patch), lambda: texture)
            order = tf.where(is_patch, -1, order)

        def augment_texture(points: tf.Tensor | None = None) -> tf.Tensor:
            if is_patch is False:
                return _turn_grey(augment(texture, operations, order, numbers, points), is_grey)
            unchanged = texture if points is None else tf.gather(tf.reshape(texture, [-1, 3]), points)
            return tf.cond(
                is_patch,
                lambda: unchanged,
                lambda: _turn_grey(augment(texture, operations, order, numbers, points), is_grey),
            )

        if trace:
            augmented_texture = augment_texture()
            augmented = tf.where(mask > 0, blend(image, augmented_texture, share), image)
            traced = [texture, augmented_texture, share, order]
        else:
            augmented, traced = _paste(image, mask, augment_texture, share), []
        if label_correction:
            mask = masks.noticeable(mask, augmented, image, label_correction)
        return [augmented, mask, *traced]

    def defective() -> list[tf.Tensor]:
        chance, which = tf.unstack(uniform(defect_key, 2))

        def transplant() -> list[tf.Tensor]:
            defect = placement.rotate(placement.turn(take(real_defects, index_below(count_of(real_defects), which))))
            mask = tf.cast(defect[..., 3:] > 127, tf.uint8)
            augmented = tf.where(mask > 0, defect[..., :3], image)
            traced = [defect[..., :3], defect[..., :3], tf.constant(1.0), tf.fill([count], -1)] if trace else []
            return [augmented, mask, *traced]

        return tf.cond(chance < real_defect_probability, transplant, anomalous)

    spoil = defective if real_defect_probability and real_defects is not None else anomalous
    augmented, mask, *traced = tf.cond(anomaly < anomaly_probability, spoil, clean)
    example = {
        'image': tf.ensure_shape(image, [H, W, 3]),
        'augmented': tf.ensure_shape(augmented, [H, W, 3]),
        'mask': tf.ensure_shape(mask, [H, W, 1]),
    }
    return example | dict(zip(('texture', 'augmented_texture', 'opacity', 'order'), traced, strict=False))


def _paste(
    image: tf.Tensor, mask: tf.Tensor, augment_texture: Callable[[tf.Tensor], tf.Tensor], opacity: tf.Tensor
) -> tf.Tensor:
    """The image, uint8 [H, W, 3], with the texture blended in where the mask is.

    A mask covers few pixels, and only these are computed: `augment_texture` takes [P], pixels counted row by row.
    """
    points = tf.where(tf.reshape(mask, [-1]) > 0)[:, 0]
    pixels = tf.reshape(image, [-1, 3])
    blended = blend(tf.gather(pixels, points), augment_texture(points), opacity)
    return tf.reshape(tf.tensor_scatter_nd_update(pixels, points[:, None], blended), tf.shape(image))


def blend(image: tf.Tensor, texture: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    """Lays `opacity` of the texture over the image: uint8 [..., 3], and so is the result, rounded."""
    image, texture = tf.cast(image, tf.float32), tf.cast(texture, tf.float32)
    return tf.cast(tf.round(image + opacity * (texture - image)), tf.uint8)


def _turn_grey(pixels: tf.Tensor, condition: bool | tf.Tensor) -> tf.Tensor:
    """The luma of uint8 [..., 3] in all three channels if the condition holds, else the pixels as they are."""
    if condition is False:
        return pixels
    luma = tf.cast(tf.round(tf.tensordot(tf.cast(pixels, tf.float32), tf.constant(LUMA), 1)), tf.uint8)
    return tf.where(condition, luma, pixels)


def _draw_texture(
    key: tf.Tensor,
    textures: Bank | tf.Tensor | str,
    images: Bank | tf.Tensor,
    index: tf.Tensor,
    image: tf.Tensor,
    opacity: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """A texture, uint8 [H, W, 3], and its opacity, in (lowest, highest], for the image at an index of `images`."""
    choice, share, *numbers = tf.unstack(uniform(key, 5))
    if not isinstance(textures, str):
        texture = take(textures, index_below(count_of(textures), choice))
    elif textures == COLOUR:
        texture = tf.broadcast_to(tf.cast(tf.stack(numbers) * 256.0, tf.uint8), tf.shape(image))
    else:
        texture = draw_patch(images, index, [choice, *numbers[:2]])
    lowest, highest = opacity
    return texture, tf.cast(between(highest, lowest, share), tf.float32)


def draw_patch(images: Bank | tf.Tensor, index: tf.Tensor, numbers: Sequence[tf.Tensor]) -> tf.Tensor:
    """Another image than the one at `index`, if there is one, moved by at most half of its size: uint8 [H, W, 3].

    Args:
        images: bank of normal images.
        index: integer scalar.
        numbers: three in [0, 1), float64, which choose the image and the shifts.
    """
    count = count_of(images)
    other = (index + 1 + index_below(tf.maximum(count - 1, 1), numbers[0])) % count
    return shift(take(images, other), numbers[1] - 0.5, numbers[2] - 0.5)


def shift(image: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Moves an image, uint8 [H, W, 3], by parts of its size in [-1, 1]; its mirror image fills the gap, without a seam.

    Args:
        image: uint8 [H, W, 3].
        down: float64 scalar, part of the height.
        right: float64 scalar, part of the width.
    """
    for axis, part in enumerate((down, right)):
        size = tf.shape(image)[axis]
        position = (tf.range(size) - tf.cast(tf.round(tf.cast(size, tf.float64) * part), tf.int32)) % (2 * size)
        image = tf.gather(image, tf.minimum(position, 2 * size - 1 - position), axis=axis)
    return image


def _draw_operations(key: tf.Tensor, available: int, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`count` different ones of `available` operations in random order, int32 [count]; their numbers, [count, 3]."""
    numbers = tf.random.stateless_uniform([available + 3 * count], key)
    order = tf.math.top_k(numbers[:available], count).indices
    return order, tf.reshape(numbers[available:], [count, 3])
