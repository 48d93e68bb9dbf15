"""Widgets that several screens use; they know no suite and no record."""
