"""What the screen starts: exactly the commands that a person could type.

As subprocesses of the app's own loop, never from a thread: a child may ask the kernel to die with
its parent, and the kernel means the thread.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `error` is what it said on stderr."""

    code: int
    output: str
    error: str


def run_detached(plan_file: Path, log_root: Path) -> list[str]:
    """Arguments of `workbench` that start a plan and return."""
    return ["run", _near(plan_file), "--detach", "--log-root", _near(log_root)]


def resume_detached(suite: str, log_root: Path) -> list[str]:
    """Arguments of `workbench` that go on with a suite and return."""
    return ["resume", suite, "--detach", "--log-root", _near(log_root)]


def list_suites(log_root: Path) -> list[str]:
    """Arguments of `workbench` that list suites, and end the runs of those without a warden."""
    return ["ps", "--all", "--log-root", _near(log_root)]


def report(suite: str, log_root: Path, out: Path) -> list[str]:
    """Arguments of `workbench` that write a suite's report into a folder."""
    return ["report", suite, "--log-root", _near(log_root), "--out", _near(out)]


def shown(arguments: Sequence[str]) -> str:
    """The command as it would be typed."""
    return shlex.join(["workbench", *arguments])


async def workbench(arguments: Sequence[str]) -> Outcome:
    """Run `workbench` with these arguments and wait for it; the loop goes on meanwhile."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workbench", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        output, error = await asyncio.wait_for(child.communicate(), TIMEOUT_SECONDS)
    except TimeoutError:
        child.kill()
        await child.wait()
        return Outcome(-1, "", f"no answer within {TIMEOUT_SECONDS:g} s")
    text, talk = output.decode("utf-8", "replace"), error.decode("utf-8", "replace")
    return Outcome(child.returncode or 0, text, talk)


def _near(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
