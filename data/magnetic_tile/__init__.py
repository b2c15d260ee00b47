"""Magnetic Tile Defects."""
