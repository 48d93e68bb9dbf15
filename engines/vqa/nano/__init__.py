"""The small model that is trained from scratch as a base for demos and tests."""
