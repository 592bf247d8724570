"""Posta's speed and memory, measured beside its rivals in the same minutes of the same machine."""
