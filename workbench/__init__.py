"""Commands, screens, plans, supervision and telemetry.

Starts engines as processes and never imports torch.
"""
