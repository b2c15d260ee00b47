"""Surfaces drawn by this project, with defects and exact masks: a data set that needs no download."""
