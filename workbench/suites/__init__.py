"""A suite's folder: journal, reducer of its events, record, control file, readers.

Supervision is in `supervisor`.
"""
