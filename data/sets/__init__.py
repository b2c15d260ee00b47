"""Data sets: one TFDS builder in each folder. `builders` finds them by name; most derive from the one of `in_place`."""
