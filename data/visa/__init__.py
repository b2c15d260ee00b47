"""VisA."""
