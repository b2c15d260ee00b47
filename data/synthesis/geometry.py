"""How a normal image lies in front of the camera: turned, mirrored, rotated. One place, because masks turn along.

Everything is drawn first, as a `Placement`, and is then done to as many images as have to move together.
"""

import dataclasses

import tensorflow as tf

from data.synthesis.draws import index_below, uniform
from data.synthesis.operations import rotate

BLACK, MIRROR = 'black', 'mirror'
FILLS = (BLACK, MIRROR)


@dataclasses.dataclass(frozen=True)
class Placement:
    """A turn, mirroring and rotation.

    Attributes:
        is_rotated: bool scalar, whether the image is rotated.
        degrees: float32 scalar, by how much.
        mirrors: whether the image goes on beyond its border as in a mirror, so that no corner turns black.
        is_transposed, is_upside_down, is_mirrored: bool scalars: rows and columns change places; then the rows, then
            the columns are taken in the opposite order. All None where images are never turned.
    """

    is_rotated: tf.Tensor
    degrees: tf.Tensor
    mirrors: bool = False
    is_transposed: tf.Tensor | None = None
    is_upside_down: tf.Tensor | None = None
    is_mirrored: tf.Tensor | None = None

    def turn(self, image: tf.Tensor) -> tf.Tensor:
        """The image, [H, W, C], turned and mirrored, without the rotation; no pixel changes."""
        if self.is_transposed is None:
            return image
        shape = image.shape
        image = tf.cond(self.is_transposed, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        image = tf.cond(self.is_upside_down, lambda: image[::-1], lambda: image)
        image = tf.cond(self.is_mirrored, lambda: image[:, ::-1], lambda: image)
        return tf.ensure_shape(image, shape)

    def rotate(self, image: tf.Tensor) -> tf.Tensor:
        """The image, [H, W, C], rotated if this placement rotates."""
        return tf.cond(self.is_rotated, lambda: rotate(image, self.degrees, mirrors=self.mirrors), lambda: image)


def draw_turn(
    key: tf.Tensor, *, is_square: bool, quarter_turns: bool, flips: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The last three attributes of a `Placement`.

    Args:
        key: int64 [2], for the stateless draws.
        is_square: whether height and width are the same; other images keep their shape.
        quarter_turns: turn by a random multiple of 90 degrees, or of 180 if the image is not square.
        flips: mirror half of the images left to right, and half of them top to bottom.
    """
    turn, flip_y, flip_x = tf.unstack(uniform(key, 3))
    quarters = tf.constant(0)
    if quarter_turns:
        quarters = index_below(4, turn) if is_square else 2 * index_below(2, turn)
    # A quarter turn counter-clockwise exchanges rows and columns and then reverses the rows.
    is_upside_down = (quarters == 1) | (quarters == 2)
    is_mirrored = (quarters == 2) | (quarters == 3)
    if flips:
        is_upside_down ^= flip_y < 0.5
        is_mirrored ^= flip_x < 0.5
    return quarters % 2 == 1, is_upside_down, is_mirrored
