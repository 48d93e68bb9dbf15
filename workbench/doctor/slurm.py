"""Slurm: its partitions and their limits, where its commands are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from workbench.doctor.finding import Finding, note, ok

SECONDS: Final = 5.0
"""Time for the controller to answer."""
FORMAT: Final = "%P|%a|%l|%D|%c|%m|%G"
"""Partition, availability, time limit, nodes, CPUs and MB of a node, generic resources."""


def slurm_findings(variables: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """The partitions that `sinfo` lists, and the job that this shell is in; nothing without it."""
    program = shutil.which("sinfo", path=variables.get("PATH"))
    if program is None:
        return
    remedy = "see `sinfo` and `scontrol ping`"
    try:
        answer = subprocess.run(
            [program, "--noheader", f"--format={FORMAT}"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield note("Slurm", f"sinfo has not answered within {SECONDS:g} s", remedy)
        return
    except OSError as error:
        yield note("Slurm", f"{program}: {error.strerror}", remedy)
        return
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or [f"sinfo ended with {answer.returncode}"]
        yield note("Slurm", lines[-1], remedy)
        return
    rows = [line.split("|") for line in answer.stdout.splitlines()]
    partitions = [describe_partition(row) for row in rows if len(row) == FORMAT.count("%")]
    yield ok("Slurm", "; ".join(partitions) or "no partition")
    if job := variables.get("SLURM_JOB_ID"):
        yield ok("Slurm", f"this shell is in job {job}")


def describe_partition(row: list[str]) -> str:
    """`gpu (default): 2-00:00:00 at most, 4 nodes of 32 CPUs, 256000 MB, gpu:a100:4`."""
    name, available, limit, nodes, cores, memory, resources = (part.strip() for part in row)
    title = f"{name.removesuffix('*')} (default)" if name.endswith("*") else name
    longest = "no time limit" if limit == "infinite" else f"{limit} at most"
    count = "1 node" if nodes == "1" else f"{nodes} nodes"
    parts = [longest, f"{count} of {cores} CPUs", f"{memory} MB"]
    parts += [resources] if resources not in ("", "(null)") else []
    parts += [f"it is {available}"] if available != "up" else []
    return f"{title}: {', '.join(parts)}"
