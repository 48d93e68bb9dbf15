"""How a child of this package tells its parent: JSON lines on stdout, one message a line.

Building, describing, copying and browsing run in children, because pyarrow and pixels are heavy;
they all speak this way and say `progress`, then `done` or `failed`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def speak(**message: Any) -> None:
    """One message, ASCII only: it passes whatever encoding the pipe has."""
    sys.stdout.write(json.dumps(message, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def percent_speaker() -> Callable[[int, int, str], None]:
    """Takes (done, total, unit); says at most 100 lines a unit: a terminal draws no finer bar."""
    last: dict[str, int] = {}

    def say(done: int, total: int, unit: str) -> None:
        percent = 100 * done // max(total, 1)
        if last.get(unit) != percent:
            last[unit] = percent
            speak(kind="progress", done=done, total=total, unit=unit)

    return say
