"""Vision tower, projector and language model of a captioner; no data and no training."""
