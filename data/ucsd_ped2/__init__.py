"""UCSD Ped2."""
