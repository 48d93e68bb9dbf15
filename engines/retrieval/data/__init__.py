"""From records to pairs and batches of items; encoding them is in `index` and `models`."""
