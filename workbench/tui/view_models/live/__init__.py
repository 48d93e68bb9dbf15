"""Rows, charts and lines of the Live screen."""
