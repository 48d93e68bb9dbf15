"""Processes, locks, lanes, GPU selection and limits of this machine.

Which run is next is in `supervisor`.
"""
