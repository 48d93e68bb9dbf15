"""Costs of planned runs from earlier runs and cost probes, and the part of a plan that fits."""
