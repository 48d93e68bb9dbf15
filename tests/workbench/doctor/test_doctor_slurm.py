"""What doctor says of Slurm, by stand-ins for `sinfo`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workbench.doctor import slurm


def install(folder: Path, script: str) -> dict[str, str]:
    """A machine whose `sinfo` is this script of a shell."""
    (folder / "sinfo").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "sinfo").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_nothing_is_told_where_slurm_is_not_installed(tmp_path: Path) -> None:
    assert list(slurm.slurm_findings({"PATH": str(tmp_path)})) == []


def test_partitions_and_limits_are_told(tmp_path: Path) -> None:
    lines = "debug*|up|infinite|1|2|4000|(null)\\ngpu|drain|2-00:00:00|4|32|256000|gpu:a100:4"
    variables = install(tmp_path, f"printf '{lines}\\n'")
    findings = list(slurm.slurm_findings({**variables, "SLURM_JOB_ID": "12"}))
    assert [finding.standing for finding in findings] == ["ok", "ok"]
    assert findings[0].text == (
        "debug (default): no time limit, 1 node of 2 CPUs, 4000 MB; "
        "gpu: 2-00:00:00 at most, 4 nodes of 32 CPUs, 256000 MB, gpu:a100:4, it is drain"
    )
    assert findings[1].text == "this shell is in job 12"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'slurm_load_partitions: Unable to contact' >&2; exit 1", "Unable to contact"),
        ("exit 3", "sinfo ended with 3"),
        ("sleep 60", "has not answered"),
    ],
)  # fmt: skip
def test_a_controller_that_does_not_answer_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(slurm, "SECONDS", 0.2)
    (finding,) = slurm.slurm_findings(
        install(tmp_path, f"exec {script}" if "sleep" in script else script)
    )
    assert finding.standing == "note"
    assert text in finding.text
