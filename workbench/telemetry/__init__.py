"""Readings of NVML, /proc and the environment, sampled beside a run; decides nothing."""
