"""Answers of folds or runs combined to one.

Answers of one model are in `answering` and `evaluation`.
"""
