"""Tables of records and comparisons, a module for each subject.

Layout of a report is in `results.report`.
"""
