"""Memory estimate of a retrieval run, on fake tensors.

What engines share of it is in `torchkit.memory`.
"""
