"""From captions and media to batches.

Models are in `models`, caches of features in `torchkit.modeling`.
"""
