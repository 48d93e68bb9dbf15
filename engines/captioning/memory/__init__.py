"""Memory estimate of a captioning run, on fake tensors.

What engines share of it is in `torchkit.memory`.
"""
