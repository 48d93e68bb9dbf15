"""Training loop, step timing, validation, early stopping, cost forecast.

An engine's own part is its `tasks`.
"""
