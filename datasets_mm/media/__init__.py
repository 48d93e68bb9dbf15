"""Decoding of images and videos, and the caches of what was decoded.

Where media lie is in `sources`.
"""
