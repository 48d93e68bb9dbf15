"""Inference, metrics, predictions and submissions of one model."""
