"""Slurm: sbatch script, settings, queue, accounting, collection of records.

Suites in it are in `suites`.
"""
