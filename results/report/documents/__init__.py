"""Sections of each kind of report and its summary; single tables are in `results.tables`."""
