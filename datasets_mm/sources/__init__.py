"""Where the files of a source lie, and their fingerprint.

Reading their formats is in `adapters`.
"""
