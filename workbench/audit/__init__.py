"""Rules that name faults of plans, data and results, each with a code.

What ends a run is in `supervisor`.
"""
