"""Profiles of subsets as sections, tables and charts.

They are measured in `datasets_mm.profile`.
"""
