"""Rows of squeue and sacct; jobs of the environment; what a command of Slurm inherits."""

from __future__ import annotations

import pytest

from workbench.slurm import commands, states
from workbench.slurm.queue import QueueAnswer


def test_rows_of_squeue() -> None:
    text = (
        "12_3|RUNNING|None|gpu07|week\n"
        "12_[4-5,8%2]|PENDING|Resources||week\n"
        "9|CANCELLED by 1000||gpu[01-02]|a|b\n"
        "slurm_load_jobs error: Invalid job id specified\n"
    )
    rows = states.parse_rows(text)
    assert [row.job for row in rows] == ["12_3", "12_4", "12_5", "12_8", "9"]
    assert rows[0].describe() == "RUNNING"
    assert rows[0].node == "gpu07"
    assert rows[1].describe() == "PENDING (Resources)"
    assert rows[4].name == "a|b"
    assert rows[4].state == "CANCELLED"


@pytest.mark.parametrize(
    ("state", "over"),
    [
        ("PENDING", False), ("RUNNING", False), ("COMPLETING", False), ("REQUEUED", False),
        ("PREEMPTED", False), ("SPECIAL_EXIT", False), ("A_NEW_WORD", False), ("COMPLETED", True),
        ("FAILED", True), ("TIMEOUT", True), ("NODE_FAIL", True), ("OUT_OF_MEMORY", True),
    ],
)  # fmt: skip
def test_only_a_known_last_state_is_over(state: str, over: bool) -> None:
    assert states.JobState("1_1", state).over is over


def test_a_task_by_its_job_or_by_the_name_of_its_suite() -> None:
    rows = states.parse_rows(
        "7_1|FAILED|x|n|week\n9_1|RUNNING|None|n|week\n9_11|PENDING|x||week\n3_1|RUNNING|x|n|b\n"
    )
    answer = QueueAnswer({row.job: row for row in rows}, 1.0)
    assert answer.find_task("7_1", "week", 1) == rows[0]
    assert answer.find_task("8_1", "week", 1) is None, "a job that is gone is not another one"
    assert answer.find_task("", "week", 1) == rows[1], "submitted by hand: the newest"
    assert answer.find_task("", "week", 2) is None


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3"),
    ],
)
def test_the_job_of_this_process(variables: dict[str, str], job: str) -> None:
    assert commands.job_name(variables) == job


def test_a_new_job_inherits_nothing_of_the_surrounding_one() -> None:
    variables = {
        "PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "lab",
        "SLURM_JOB_ID": "1", "SLURM_CPU_BIND": "quiet", "SLURM_MEM_PER_NODE": "100",
    }  # fmt: skip
    assert commands.clean_variables(variables) == {
        "PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "lab",
    }  # fmt: skip
