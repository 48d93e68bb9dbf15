"""The sbatch script of a suite: an array of jobs, one task a run. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = "slurm"
"""Folder of a suite for the script, the jobs and their logs."""
NAME: Final = "job.sbatch"

_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SLURM_TIME: Final = re.compile(
    r"(?P<minutes>\d+)(?::(?P<seconds>\d\d?))?"
    r"|(?P<hours>\d+):(?P<minutes2>\d\d?):(?P<seconds2>\d\d?)"
    r"|(?P<days>\d+)-(?P<hours3>\d\d?)(?::(?P<minutes3>\d\d?)(?::(?P<seconds3>\d\d?))?)?"
)
"""Times as `sbatch --time` reads them."""


class TaskGroup(NamedTuple):
    """Array tasks that wait for the same other tasks."""

    numbers: tuple[int, ...]
    """Numbers of the runs in the suite, from 1; they are the array's task ids."""
    needs: tuple[int, ...] = ()
    """Numbers of the tasks that must have ended before."""
    nodes: int = 0
    """Nodes of each task; 0: no run of the suite needs several, and sbatch is told none."""


class ScriptOptions(NamedTuple):
    """What a cluster and a user ask for."""

    time: str = ""
    """Time limit of a task; empty: the partition's."""
    array_parallel: int = 0
    """Tasks at once; 0: as many as the scheduler starts."""
    signal_seconds: int = 120
    """How long before its time limit a task gets SIGUSR2."""
    sbatch: tuple[str, ...] = ()
    """Options for sbatch, verbatim: `--partition=gpu`."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the workbench starts: `module load cuda`."""


class ScriptPaths(NamedTuple):
    """Where a task finds the workbench and its suite."""

    python: Path
    suite: Path
    variables: Mapping[str, str] = {}
    """Exported: folders of caches and settings that the submitting shell has moved."""


def parse_time(text: str) -> tuple[str, int]:
    """A time limit as sbatch takes it, and its seconds. Also `11h30m`, `90m`.

    Raises:
        ValueError: it is no time.
    """
    text = text.strip()
    if (match := _DURATION.fullmatch(text)) and any(match.groups()):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        return f"{total // 3600:02}:{total % 3600 // 60:02}:{total % 60:02}", total
    if match := _SLURM_TIME.fullmatch(text):
        parts = {name.rstrip("23"): int(part) for name, part in match.groupdict().items() if part}
        units = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
        if total := sum(units[name] * count for name, count in parts.items()):
            return text, total
    raise ValueError(f"'{text}' is no time limit; write 24:00:00, 2-00:00:00 or 11h30m")


def group_tasks(
    needs: Sequence[Iterable[int]], nodes: Sequence[int] | None = None
) -> list[TaskGroup]:
    """Groups of tasks in the order of submission; row i has the needs and nodes of run i + 1.

    Runs with the same needs and nodes are one array. A run only needs earlier runs, so that the
    groups of its needs are submitted before its own. `nodes`: of each run; None: one.
    """
    groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
    several = nodes is not None and max(nodes, default=1) > 1
    counts = nodes if nodes is not None and several else [0] * len(needs)
    for number, (needed, count) in enumerate(zip(needs, counts, strict=True), 1):
        groups.setdefault((tuple(sorted(set(needed))), count), []).append(number)
    return [TaskGroup(tuple(numbers), *key) for key, numbers in groups.items()]


def format_array(numbers: Sequence[int], parallel: int = 0) -> str:
    """`1-3,5%2` for `--array`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    text = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
    return f"{text}%{parallel}" if parallel else text


def group_options(
    group: TaskGroup, parallel: int = 0, jobs: Mapping[int, str] | None = None
) -> list[str]:
    """Options of sbatch for one group: its array, and the jobs that it waits for.

    `afterany`: the task itself judges whether what it needs has completed, and its record says so.
    `jobs`: job (`1234_5`) of each task that was submitted before; None: placeholders for a person.
    """
    options = [f"--array={format_array(group.numbers, parallel)}"]
    if jobs is None:
        waiting = [f"JOB_{number}" for number in group.needs]
    else:
        waiting = [jobs[number] for number in group.needs if number in jobs]
    if group.nodes:
        options += [f"--nodes={group.nodes}", "--ntasks-per-node=1"]
    return options + ([f"--dependency=afterany:{':'.join(waiting)}"] if waiting else [])


def write_script(
    paths: ScriptPaths, groups: Sequence[TaskGroup], options: ScriptOptions, about: str
) -> str:
    """The script. The options of the first group stand in it; others are given to sbatch.

    `about`: one line on what is run.
    """
    suite = paths.suite
    script = suite / FOLDER / NAME
    head = [
        "#!/bin/bash",
        f"# {about}; one array task is one run. Written by `workbench submit`.",
        "# Submitted with:",
        *(
            f"#   sbatch {' '.join(group_options(group, options.array_parallel))} "
            f"{shlex.quote(str(script))}"
            for group in groups
        ),
    ]
    directives = [
        f"--job-name={suite.name}",
        *group_options(groups[0]._replace(needs=()), options.array_parallel),
        *([f"--time={options.time}"] if options.time else []),
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR2@{options.signal_seconds}",
        f"--output={_quote(str(suite / FOLDER).replace('%', '%%') + '/%A_%a.log')}",
        *options.sbatch,
    ]
    exported = [f"export {name}={shlex.quote(text)}" for name, text in paths.variables.items()]
    command = f"{shlex.quote(str(paths.python))} -P -m workbench run-one"
    body = [
        *options.setup,
        "# As many threads as Slurm gives cores; a value of your own wins.",
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_ON_NODE:-1}}"',
        *exported,
        "trap '' USR2  # until Python handles it",
        f'exec {command} {shlex.quote(str(suite))} "$SLURM_ARRAY_TASK_ID"',
    ]
    lines = [*head, *(f"#SBATCH {directive}" for directive in directives), "", *body]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A value of an `#SBATCH` line: double quotes where it has blanks."""
    return f'"{text}"' if re.search(r"\s", text) else text
