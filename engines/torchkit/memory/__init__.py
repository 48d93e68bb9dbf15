"""Allocations of a step on fake tensors, counted by what they are for.

Each engine's estimate is in its own `memory`.
"""
