"""Text of any table or report: formats, languages, sanitizing, terminal output.

Knows no records.
"""
