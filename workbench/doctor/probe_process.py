"""A child that looks where the doctor must not look itself: drivers may hang, pixels are heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from workbench import paths


def ask(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `python -m module`; it answers in JSON lines on stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **paths.module_path(os.environ)},
    )  # fmt: skip


def answer(child: subprocess.Popen[bytes], seconds: float) -> list[dict[str, Any]] | None:
    """What it said; nothing where that is no JSON, None where it took longer and was killed."""
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
