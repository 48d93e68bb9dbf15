"""Checkpoint files of a training, and what must be equal to resume it.

Gradient checkpointing is in `modeling`.
"""
