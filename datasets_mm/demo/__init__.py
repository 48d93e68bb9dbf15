"""Data that are made on this machine for demos and tests.

Adapters of formats that users have are in `adapters`.
"""
