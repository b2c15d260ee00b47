"""Random numbers from a key, and where they fall: every draw of the synthesis is one of these.

A key is int64 [2]. The same key gives the same numbers in any process, thread and order.
"""

import math

import tensorflow as tf


def uniform(key, count):
    """`count` numbers in [0, 1): in float64, so that every one of many images is as likely as the next."""
    return tf.random.stateless_uniform([count], key, dtype=tf.float64)


def index_below(count, u):
    """Maps u in [0, 1) onto 0 ... count - 1, int32."""
    return tf.cast(u * tf.cast(count, tf.float64), tf.int32)


def between(low, high, u):
    """Maps u in [0, 1) onto [low, high)."""
    return low + (high - low) * u


def log_between(low, high, u):
    """Maps u in [0, 1) onto [low, high), uniform in logarithm."""
    return tf.exp(between(math.log(low), math.log(high), u))


def angle_between(degrees, u):
    """Maps u in [0, 1) onto [-degrees, degrees), float32."""
    return tf.cast(between(-degrees, degrees, u), tf.float32)
