"""Settings of clusters: `~/.config/workbench/clusters/NAME.toml`, overridden by the command."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from datasets_mm import strict_toml
from workbench import paths
from workbench.slurm import script

DEFAULT: Final = "default"
"""Name of the cluster that is taken where none is named, if it is there."""
OWN_OPTIONS: Final = (
    "--array", "-a", "--job-name", "-J", "--signal", "--open-mode", "--output", "-o", "--requeue",
    "--no-requeue", "--dependency", "-d", "--wrap",
)  # fmt: skip
"""Options that the script sets itself."""


class ClusterSettings(BaseModel):
    """What a cluster asks of every job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: str = ""
    """Time limit of a task, as sbatch takes it; empty: the partition's."""
    array_parallel: int = Field(0, ge=0)
    """Tasks at once; 0: as many as the scheduler starts."""
    signal_seconds: int = Field(120, ge=10, le=65_535)
    """Seconds before the time limit at which a task is asked to write its checkpoint."""
    sbatch: tuple[str, ...] = ()
    """Options for sbatch, verbatim: `--partition=gpu`, `--gres=gpu:1`, `--comment=pytorch`."""
    setup: tuple[str, ...] = ()
    """Lines of shell before the workbench starts: `module load cuda/12.6`."""
    gpu: str = ""
    """GPU that memory is estimated for, as in `--gpu`; empty: the plan's."""


def cluster_folder() -> Path:
    """Folder of the user's cluster settings."""
    return paths.config_root() / "clusters"


def load_cluster(name: str | None) -> tuple[str, ClusterSettings]:
    """Name and settings of a cluster; without a name those of `default`, or of none.

    Raises:
        TomlError: there is no such cluster, or its file is wrong.
    """
    file = cluster_folder() / f"{name or DEFAULT}.toml"
    if file.is_file():
        return name or DEFAULT, strict_toml.read(file, ClusterSettings)
    if name is None:
        return "", ClusterSettings()
    names = [path.stem for path in strict_toml.list_files(cluster_folder())]
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"do you mean '{nearest[0]}'?" if nearest else f"write {file}"
    raise strict_toml.TomlError([f"cluster '{name}' is not known; {hint}"])


def merge_options(
    cluster: ClusterSettings, time: str | None, array_parallel: int | None, sbatch: tuple[str, ...]
) -> script.ScriptOptions:
    """The options of a script: the cluster's, overridden and extended by the command's.

    Raises:
        TomlError: a time limit that is none or too short, or an option that the script sets.
    """
    problems = []
    limit = time if time is not None else cluster.time
    if limit:
        try:
            limit, seconds = script.parse_time(limit)
            if seconds <= cluster.signal_seconds:
                problems.append(
                    f"--time {limit}: a task gets its signal {cluster.signal_seconds} s before its "
                    "end, so it would stop as soon as it starts; raise the limit, or lower "
                    "signal_seconds of the cluster"
                )
        except ValueError as error:
            problems.append(f"--time: {error}")
    options = (*cluster.sbatch, *sbatch)
    for option in options:
        if not option.startswith("-") or "\n" in option:
            problems.append(f"--sbatch '{option}' is no option of sbatch; write --sbatch=--NAME=…")
        elif option.split("=")[0].split()[0] in OWN_OPTIONS:
            problems.append(f"--sbatch '{option}': the script sets this itself; leave it out")
        elif option.split("=")[0].split()[0] in ("--time", "-t"):
            problems.append(f"--sbatch '{option}': give the time limit with --time")
    if problems:
        raise strict_toml.TomlError(problems)
    parallel = cluster.array_parallel if array_parallel is None else array_parallel
    return script.ScriptOptions(limit, parallel, cluster.signal_seconds, options, cluster.setup)
