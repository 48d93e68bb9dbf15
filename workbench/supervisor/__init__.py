"""The warden's process: queue, lanes, attempts, exit causes, recovery.

The files of a suite are in `suites`.
"""
