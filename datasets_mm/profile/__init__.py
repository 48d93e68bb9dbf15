"""Facts and problems of a subset's records, as data.

Tables and charts of them are in `workbench.data_profile`.
"""
