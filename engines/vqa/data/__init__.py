"""From questions and pictures to batches; chat templates and processors are in `models`."""
