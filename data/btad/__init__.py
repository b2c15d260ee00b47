"""BTAD."""
