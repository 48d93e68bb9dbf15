"""Resident memory of this process."""

from __future__ import annotations

from pathlib import Path


def read_rss_peak() -> int | None:
    """VmHWM in bytes; None where /proc does not say.

    Not `ru_maxrss`: that one includes the parent's size at the fork.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("VmHWM:")), None)
    return int(line.split()[1]) * 1024 if line else None
