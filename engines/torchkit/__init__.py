"""What the engines share of torch: training, models, checkpoints, data loading, memory estimates.

Knows no engine.
"""
