"""The programs of Slurm: sbatch, squeue, sacct, scontrol, scancel. Nothing here waits long.

A command gets the user's environment without the variables of a surrounding job: they would change
the new job (`SLURM_CPU_BIND` slows it down, `SLURM_MEM_PER_NODE` limits it).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

USER_VARIABLES: Final = frozenset(
    {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT"}
)
"""Variables of Slurm that a user or an administrator sets; all others describe a job."""

RUN_NODES: Final = "WORKBENCH_NODES"
"""Variable for engines: `NAME=ADDRESS,…` of each node of the run, the batch script's first."""

SECONDS: Final = 60.0
"""Timeout of a command; a busy controller answers after many seconds."""

_STARTED: list[subprocess.Popen[bytes]] = []
"""Commands that nobody waits for; kept so that their status is taken at last."""


class SlurmError(RuntimeError):
    """A command of Slurm is missing, failed, or did not answer; one sentence."""


def job_name(variables: Mapping[str, str]) -> str:
    """`1234_5` or `1234` of the Slurm job that this process runs in; empty: in none."""
    task = variables.get("SLURM_ARRAY_TASK_ID", "")
    array = variables.get("SLURM_ARRAY_JOB_ID", "")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


def read_run_nodes(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the nodes that a run computes on; empty: this machine alone."""
    pairs = variables.get(RUN_NODES, "").split(",")
    return tuple(pair.partition("=")[0] for pair in pairs if pair)


def clean_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment without what describes a surrounding job."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith("SLURM_") or name in USER_VARIABLES
    }


def is_installed(program: str) -> bool:
    """Whether this machine has the program: a compute node may have none of them."""
    return shutil.which(program) is not None


def run_command(*words: str) -> str:
    """Standard output of a command.

    Raises:
        SlurmError: it is missing, failed or did not answer.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=True,
            stdin=subprocess.DEVNULL, env=clean_variables(os.environ),
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise SlurmError(f"{words[0]}: {lines[-1].removeprefix(f'{words[0]}: ')}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]} did not answer within {SECONDS:g} s") from None
    except OSError as error:
        raise SlurmError(f"{words[0]} cannot be started: {error.strerror}") from None
    return done.stdout


def start_command(*words: str) -> None:
    """Start a command and wait for nothing; a missing program does nothing."""
    _STARTED[:] = [command for command in _STARTED if command.poll() is None]
    if is_installed(words[0]):
        null = subprocess.DEVNULL
        variables = clean_variables(os.environ)
        command = subprocess.Popen(words, stdin=null, stdout=null, stderr=null, env=variables)
        _STARTED.append(command)


def submit_script(script: Path, options: Sequence[str] = ()) -> str:
    """Submit a script; returns the job id.

    Raises:
        SlurmError: sbatch refused it; the sentence is Slurm's own.
    """
    answer = run_command("sbatch", "--parsable", *options, str(script))
    return answer.strip().partition(";")[0]


def list_nodes(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Name and address of each node of the job, in Slurm's order: the batch script is on the first.

    Raises:
        SlurmError: this is no job, or scontrol does not say.
    """
    nodes = variables.get("SLURM_JOB_NODELIST", "")
    if not nodes:
        raise SlurmError("this is no job of Slurm")
    names = run_command("scontrol", "show", "hostnames", nodes).split()
    rows = run_command("scontrol", "--oneliner", "show", "node", nodes).splitlines()
    fields = [dict(word.partition("=")[::2] for word in row.split()) for row in rows]
    addresses = {row.get("NodeName", ""): row.get("NodeAddr", "") for row in fields}
    return [(name, addresses.get(name) or name) for name in names]


def requeue(job: str) -> None:
    """Put the job back into the queue; its processes get SIGTERM.

    `1234_5`, not the number of the task's own job: the last task's is that of the whole array.

    Raises:
        SlurmError: no scontrol on this node, or the job may not be requeued.
    """
    run_command("scontrol", "requeue", job)
