"""Dual encoders: towers by family, fusion, compilation, export; losses are in `loss`."""
