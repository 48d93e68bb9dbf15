"""Child processes that print JSON lines on stdout, such as `datasets_mm.building.build`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any


def run_child(arguments: Sequence[str], on_message: Callable[[dict[str, Any]], None]) -> int:
    """Run a child to its end, and call `on_message` with each of its messages; its exit code.

    Other lines are passed over. The child is terminated if `on_message` raises.
    """
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as child:
        try:
            for line in child.stdout or ():
                if message := parse_message(line):
                    on_message(message)
        except BaseException:
            child.terminate()
            raise
    return child.returncode


def parse_message(line: str | bytes) -> dict[str, Any]:
    """The message of a line; empty if it is no JSON object."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
