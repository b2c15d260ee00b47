"""KolektorSDD2."""
