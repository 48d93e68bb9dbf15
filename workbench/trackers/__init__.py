"""Copies of ended runs for experiment trackers, made from the journal; nothing leaves the machine.

`run_log.py` has what is written, in the trackers' usual names; one module for each tracker.
"""
