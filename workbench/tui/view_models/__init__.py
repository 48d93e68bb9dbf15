"""What screens show, computed without Textual; drawing is in `widgets`."""
