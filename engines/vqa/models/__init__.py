"""Chat templates, processors and the vision-language model.

Questions and pictures are in `data`.
"""
