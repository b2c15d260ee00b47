"""Random numbers from a key, and maps that take them from [0, 1) to a range.

A key is int64 [2]. The same key gives the same numbers in any process, thread and order.
"""

import math
from typing import TypeAlias

import tensorflow as tf

Number: TypeAlias = float | tf.Tensor


def uniform(key: tf.Tensor, count: int) -> tf.Tensor:
    """`count` numbers in [0, 1), in float64, so that each of many images is equally likely."""
    return tf.random.stateless_uniform([count], key, dtype=tf.float64)


def index_below(count: int | tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Maps u in [0, 1) onto 0 ... count - 1, int32."""
    return tf.cast(u * tf.cast(count, tf.float64), tf.int32)


def between(low: Number, high: Number, u: Number) -> Number:
    """Maps u in [0, 1) onto [low, high)."""
    return low + (high - low) * u


def log_between(low: float, high: float, u: Number) -> tf.Tensor:
    """Maps u in [0, 1) onto [low, high), uniform in logarithm."""
    return tf.exp(between(math.log(low), math.log(high), u))


def angle_between(degrees: float, u: Number) -> tf.Tensor:
    """Maps u in [0, 1) onto [-degrees, degrees), float32."""
    return tf.cast(between(-degrees, degrees, u), tf.float32)
