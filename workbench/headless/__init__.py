"""A suite followed without the TUI, on stdout or as a Slurm task."""
