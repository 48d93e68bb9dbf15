"""Recipes (TOML) as checked objects, their steps, and the shipped ones.

Nothing here opens the data.
"""
