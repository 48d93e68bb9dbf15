"""Records, tables and reports.

Knows no other package, as a record outlives the code that wrote it.
"""
