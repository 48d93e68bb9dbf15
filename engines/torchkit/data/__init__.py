"""Subsets opened for a run, batch order, collation, prefetch; knows no model."""
