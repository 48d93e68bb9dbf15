"""Memory estimate of a VQA run, on fake tensors.

What engines share of it is in `torchkit.memory`.
"""
