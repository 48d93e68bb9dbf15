"""Child processes for checks that may hang (drivers) or load heavy libraries (caches)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from workbench import paths


def start_child(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `python -m module`, which writes JSON lines to stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **paths.module_path(os.environ)},
    )  # fmt: skip


def read_answer(child: subprocess.Popen[bytes], seconds: float) -> list[dict[str, Any]] | None:
    """The child's JSON lines; empty: no JSON; None: killed after `seconds`."""
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return None
    try:
        return [json.loads(line) for line in output.splitlines()]
    except ValueError:
        return []
