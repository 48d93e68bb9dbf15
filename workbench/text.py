"""The boundary of `results.text`, by the name that this room uses."""

from results.text import clean, clean_line

__all__ = ["clean", "clean_line"]
