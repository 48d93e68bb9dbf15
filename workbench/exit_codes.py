"""Exit codes of `workbench`. They are an interface: CI scripts branch on them."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a finished command says to the shell."""

    COMPLETED = 0
    """All runs completed, or a person skipped them."""
    FAILED = 1
    """A run failed."""
    USAGE = 2
    """The command line, a plan or a file that a person wrote is wrong. Nothing was started."""
    GATE_FAILED = 3
    """Kept for gates, as the next one: no command returns them yet."""
    INCONCLUSIVE = 4
    NOTHING_MEASURED = 5
    """Costing runs that timed no step, so that none has a forecast."""
    INTERRUPTED = 130
