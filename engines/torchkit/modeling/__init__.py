"""Loading and changing of models: weights, quantization, LoRA, attention, feature cache.

No training step.
"""
