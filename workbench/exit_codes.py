"""Exit codes of `workbench`, an interface for CI scripts."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of a command."""

    COMPLETED = 0
    """All runs completed or were skipped by a person."""
    FAILED = 1
    """A run failed."""
    USAGE = 2
    """The command line, a plan or a file that a person wrote is wrong; nothing was started."""
    NOTHING_MEASURED = 5
    """No cost probe timed a step, so there is no forecast."""
    TO_BE_CONTINUED = 75
    """The suite stopped at a checkpoint, for its time limit or a scheduler's SIGUSR1 or SIGUSR2;
    `workbench resume` goes on. EX_TEMPFAIL of sysexits.h."""
    INTERRUPTED = 130
