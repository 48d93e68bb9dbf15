"""Suites, runs and notes collected as the input of `results.report`.

Tables and layout are in `results`.
"""
