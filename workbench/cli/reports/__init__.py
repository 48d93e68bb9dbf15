"""Commands about records: lists, comparisons, reports, the gate, trackers."""
