"""`workbench gate`: is a candidate worse than a baseline, measured in turns on this machine."""
