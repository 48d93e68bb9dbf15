"""slurm/jobs.json of a suite: which job executes which run, and how it was submitted."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets_mm.atomic_files import write_atomic
from workbench.slurm import script


class Submission(BaseModel):
    """The last submission of a suite to Slurm."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user: str
    """Whose jobs they are: squeue is asked for them."""
    cluster: str = ""
    time: str = ""
    array_parallel: int = 0
    sbatch: tuple[str, ...] = ()
    """What the command line gave, beside the settings of the cluster; used again by `resume`."""
    submitted_wall: float = 0.0
    """Unix time of the last sbatch; 0: only written, to be submitted by hand."""
    control_offset: int = 0
    """Bytes of control.jsonl that were there before: commands to earlier jobs."""
    jobs: dict[str, str] = {}
    """Run id -> job (`1234_5`) of every run that was submitted; the others have ended."""


def script_path(suite: Path) -> Path:
    """The suite's sbatch script."""
    return suite / script.FOLDER / script.NAME


def read_submission(suite: Path) -> Submission | None:
    """The last submission; None: the suite runs here."""
    path = suite / script.FOLDER / "jobs.json"
    try:
        if not os.path.lexists(path):
            return None
        return Submission.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_submission(suite: Path, submission: Submission) -> None:
    """Replace the file atomically; only `workbench submit` and `resume` call this."""
    folder = suite / script.FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    write_atomic(folder / "jobs.json", submission.model_dump_json(indent=1) + "\n")


def withdraw_submission(suite: Path) -> None:
    """Forget the submission, so that the suite runs on this machine again."""
    path = suite / script.FOLDER / "jobs.json"
    if path.exists():
        path.replace(path.with_name("jobs-withdrawn.json"))
