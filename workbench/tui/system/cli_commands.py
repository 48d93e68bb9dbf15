"""Commands that the app starts: the same ones that a user can type.

They are started from the app's loop and never from a thread: a child may request to die with its
parent (PDEATHSIG), and for the kernel the parent is the thread.
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

from results.text.sanitize import clean
from workbench.output_language import chosen_language

TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Exit code, stdout and stderr of a command."""

    code: int
    output: str
    error: str

    @property
    def problem(self) -> str:
        """Why it failed, as it told; empty: it did not."""
        if self.code == 0:
            return ""
        return clean(self.error).strip() or f"it ended with code {self.code}"


def run_arguments(plan_file: Path, log_root: Path) -> list[str]:
    """Arguments of `workbench` that start a plan and return."""
    return ["run", _shorter_path(plan_file), "--detach", "--log-root", _shorter_path(log_root)]


def resume_arguments(suite: str, log_root: Path) -> list[str]:
    """Arguments of `workbench` that resume a suite and return."""
    return ["resume", suite, "--detach", "--log-root", _shorter_path(log_root)]


def ps_arguments(log_root: Path) -> list[str]:
    """Arguments of `workbench` that list suites, and end the runs of those without a warden."""
    return ["ps", "--all", "--log-root", _shorter_path(log_root)]


def report_arguments(
    names: Sequence[str], log_root: Path, out: Path, lang: str, form: str
) -> list[str]:
    """Arguments of `workbench` that write a report of suites and runs into a folder.

    `form`: `html` or `tex`, beside the Markdown; or empty.
    """
    places = ["--log-root", _shorter_path(log_root), "--out", _shorter_path(out)]
    language = [] if lang == "en" else ["--lang", lang]
    return ["report", *names, *places, *language, *([f"--form={form}"] if form else [])]


def export_arguments(file: Path, log_root: Path) -> list[str]:
    """Arguments of `workbench` that export the runs named on stdin, one a line."""
    return ["results", "export", str(file), "--run", "-", "--log-root", _shorter_path(log_root)]


def show_arguments(name: str, log_root: Path) -> list[str]:
    """Arguments of `workbench` that print all about a run."""
    return ["results", "show", name, "--log-root", _shorter_path(log_root)]


def compare_arguments(names: Sequence[str], log_root: Path) -> list[str]:
    """Arguments of `workbench` that compare runs with the first of them."""
    return ["results", "compare", *names, "--log-root", _shorter_path(log_root)]


def prediction_arguments(run: str, log_root: Path, metric: str, text: str) -> list[str]:
    """Arguments of `workbench` that list single items of a run, the worst first."""
    chosen = [f"--metric={metric}"] if metric else []
    chosen += [f"--find={text}"] if text else []
    return ["results", "predictions", run, *chosen, "--log-root", _shorter_path(log_root)]


def audit_arguments(run: str, log_root: Path) -> list[str]:
    """Arguments of `workbench` that print the faults of a run, with evidence and remedy."""
    language = chosen_language()
    chosen = [] if language == "en" else ["--lang", language]
    return ["audit", run, *chosen, "--log-root", _shorter_path(log_root)]


def experiment_arguments(run: str, log_root: Path, code: str = "") -> list[str]:
    """Arguments of `workbench` that list the experiments on a run, or start one and return."""
    chosen = [code, "--detach"] if code else []
    return ["experiment", run, *chosen, "--log-root", _shorter_path(log_root)]


def command_line(arguments: Sequence[str]) -> str:
    """The command as a shell line."""
    return shlex.join(["workbench", *arguments])


async def run_workbench(arguments: Sequence[str], text: str = "") -> CommandResult:
    """Run `workbench` with these arguments and `text` on stdin; code -1 after `TIMEOUT_SECONDS`."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workbench", *arguments,
        stdin=PIPE if text else DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        output, error = await asyncio.wait_for(
            child.communicate(text.encode() if text else None), TIMEOUT_SECONDS
        )
    except TimeoutError:
        child.kill()
        await child.wait()
        return CommandResult(-1, "", f"no answer within {TIMEOUT_SECONDS:g} s")
    data, talk = output.decode("utf-8", "replace"), error.decode("utf-8", "replace")
    return CommandResult(child.returncode or 0, data, talk)


def _shorter_path(path: Path) -> str:
    """The path relative to the current folder, if that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
