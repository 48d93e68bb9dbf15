"""From a recipe to a built subset: the build, the steps' selection, downloads.

Formats of files are in `adapters`.
"""
