"""Data sets and the input pipeline. Importing this registers the builders with TFDS and does not import TensorFlow."""

from data.sets.builders import category_names, make_builder, make_builders

__all__ = ['category_names', 'make_builder', 'make_builders']
