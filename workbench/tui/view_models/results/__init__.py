"""Rows, columns, views and exports of the Results screen."""
