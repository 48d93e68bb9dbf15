"""Subsets from recipes: adapters, building, media, profiles.

Knows no other package of this project.
"""
