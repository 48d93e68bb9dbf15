"""Measurement of two sides in turns, each time in fresh processes: A B, B A, A B, …

A side is a command line of `workbench run` and the Python that runs it, so that the baseline may be
another version of the code. Both sides write into one log root of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from results.comparison.groups import RunGroup
from results.records.schema import RunRecord
from workbench import paths
from workbench.planning import plan
from workbench.reporting import run_groups
from workbench.reporting.suite_view import read_records
from workbench.suites.suite import SuiteError


class GateSide(NamedTuple):
    """What is run for one side."""

    title: str
    arguments: tuple[str, ...]
    """Of `workbench run`: a plan and what narrows it to one run."""
    python: str


class IncompleteRunError(Exception):
    """A measured run did not complete; the message names its log."""


class GatePairs(NamedTuple):
    """Runs of both sides; the runs of one index were measured one after the other."""

    baseline: RunGroup
    candidate: RunGroup


def is_plan(name: str) -> bool:
    """Whether a name is that of a plan file or a preset, which can only be measured."""
    return name.endswith(".toml") or name in plan.preset_files()


def resolve_side(
    name: str, log_root: Path, python: str, flags: Sequence[tuple[str, str]] = ()
) -> GateSide:
    """The side that a plan file, a preset or a completed run (id, label, suite/id) names.

    `flags`: options of `workbench run` and their values, which overrule the plan.

    Raises:
        SuiteError: it names none of them.
    """
    overrides = tuple(word for flag in flags for word in flag)
    if name.endswith(".toml"):
        return GateSide(name, (str(paths.resolve(name)), *overrides), python)
    if name in plan.preset_files():
        return GateSide(name, ("--preset", name, *overrides), python)
    identity = run_groups.find_groups(log_root, [name])[0].records[0].identity
    kept_plan = log_root / identity.suite / "plan.toml"
    if not kept_plan.is_file():
        raise SuiteError(f"{kept_plan} is missing: {name} cannot be run again; give a plan file")
    chosen = ("-e", identity.engine, "-d", identity.subset, "-m", identity.model,
              "--seed", str(identity.seed))  # fmt: skip
    return GateSide(name, (str(kept_plan), *chosen, *overrides), python)


def check_side(side: GateSide, log_root: Path) -> None:
    """Check by a dry run that the side starts, and is one run.

    Raises:
        SuiteError: it does not start, or is several runs.
    """
    command = [side.python, "-m", "workbench", "run", *side.arguments, "--dry-run",
               "--log-root", str(log_root)]  # fmt: skip
    answer = subprocess.run(
        command, env=_environment(), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        reason = answer.stderr.replace("workbench: ", "").strip()
        reason = reason or f"exit code {answer.returncode}"
        raise SuiteError(f"{side.title} does not start: {reason}")
    run_ids = answer.stdout.split()
    if len(run_ids) != 1:
        few = ", ".join(run_ids[:3]) + (", …" if len(run_ids) > 3 else "")
        raise SuiteError(f"{side.title} is {len(run_ids)} runs ({few}); a gate needs a plan of one")


def measure_pairs(
    baseline: GateSide,
    candidate: GateSide,
    pairs: int,
    log_root: Path,
    report: Callable[[str], None],
) -> GatePairs:
    """Run both sides `pairs` times in turns; `report` is told of each run.

    Raises:
        IncompleteRunError: a run did not complete.
    """
    records: tuple[list[RunRecord], list[RunRecord]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            side = (baseline, candidate)[which]
            report(f"pair {pair + 1} of {pairs}: {'AB'[which]}, {side.title}")
            records[which].append(_run_side(side, "ab"[which], log_root))
    return GatePairs(
        RunGroup(baseline.title, tuple(records[0])), RunGroup(candidate.title, tuple(records[1]))
    )


def _run_side(side: GateSide, letter: str, log_root: Path) -> RunRecord:
    """The record of one more run of a side."""
    paths.make_private(log_root)
    log = log_root / f"{letter}.log"
    before = {record.identity.suite for record in read_records(log_root)}
    command = [side.python, "-m", "workbench", "run", *side.arguments, "--headless",
               "--log-root", str(log_root), "--name", f"gate-{letter}"]  # fmt: skip
    with log.open("ab") as out:
        status = _wait(subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        ))  # fmt: skip
    records = [r for r in read_records(log_root) if r.identity.suite not in before]
    if status or not records or records[-1].exit.cause != "completed":
        cause = records[-1].exit.cause if records else f"exit code {status}"
        raise IncompleteRunError(f"{side.title} did not complete ({cause}); its output is in {log}")
    return records[-1]


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Exit code; Ctrl-C, which reaches the child too, waits until the child has stopped."""
    try:
        return process.wait()
    except BaseException:
        process.wait()
        raise


def _environment() -> dict[str, str]:
    """Variables of a side: another Python has packages of its own, so it gets no path of ours."""
    variables = {name: value for name, value in os.environ.items()
                 if not re.fullmatch(r"PYTHONPATH|WORKBENCH_LOG_ROOT", name)}  # fmt: skip
    return {**variables, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
