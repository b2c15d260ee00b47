"""Data sets: one TFDS builder in each folder; `builders` finds them by name, `in_place` is what most derive from."""
