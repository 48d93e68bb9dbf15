"""The terminal interface: reads a suite's files and starts commands; holds no state of a run."""
