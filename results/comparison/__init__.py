"""Runs compared: groups, differences, criteria, rankings, history, the gate's verdict.

Tables of them are in `tables`.
"""
