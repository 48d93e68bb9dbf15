"""Captions of a subset generated, scored and written; the scores themselves are in `metrics`."""
