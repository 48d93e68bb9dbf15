"""Messages of a child process of this package: JSON lines on stdout, one message a line.

Building, describing, copying and browsing run in child processes, because pyarrow and image
decoding are heavy. Each sends `progress` messages, then `done` or `failed`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int, str], None]
"""Called with (done, total, unit)."""


def emit_message(**message: Any) -> None:
    """Print one message as a JSON line; ASCII only, for any encoding of the pipe."""
    sys.stdout.write(json.dumps(message, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def ignore_progress(done: int, total: int, unit: str) -> None:
    """Progress callback that does nothing."""
    del done, total, unit


def percent_progress() -> Progress:
    """Progress callback (done, total, unit) that emits at most 100 messages per unit."""
    last: dict[str, int] = {}

    def emit_progress(done: int, total: int, unit: str) -> None:
        percent = 100 * done // max(total, 1)
        if last.get(unit) != percent:
            last[unit] = percent
            emit_message(kind="progress", done=done, total=total, unit=unit)

    return emit_progress
