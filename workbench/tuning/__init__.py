"""Hyper-parameter search with Optuna, in a process beside the warden.

The search space is in `planning`.
"""
