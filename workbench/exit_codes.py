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
    WORSE = 3
    """Of `workbench gate`: a check is worse than accepted."""
    INCONCLUSIVE = 4
    """Of `workbench gate`: no check is worse, and not all can be told to be good enough."""
    NOTHING_MEASURED = 5
    """No cost probe timed a step, so there is no forecast; or a gate had nothing to check."""
    TO_BE_CONTINUED = 75
    """The suite stopped at a checkpoint, for its time limit or a scheduler's SIGUSR1 or SIGUSR2;
    `workbench resume` goes on. EX_TEMPFAIL of sysexits.h."""
    INTERRUPTED = 130
    """Ctrl-C or SIGINT ended it."""
