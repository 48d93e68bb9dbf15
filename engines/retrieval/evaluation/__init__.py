"""Metrics and predictions of a ranking; the search itself is in `index`."""
