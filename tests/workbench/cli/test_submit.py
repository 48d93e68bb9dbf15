"""`workbench submit` without a cluster: the script, what is refused, and a task without Slurm."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.messages import Attempt
from workbench.cli import start
from workbench.cli.main import app
from workbench.cli.submit import find_problems
from workbench.exit_codes import ExitCode
from workbench.planning import plan
from workbench.slurm import submission
from workbench.suites import suite, suite_reader
from workbench.suites.journal import Journal
from workbench.suites.suite import SuiteError
from workbench.supervisor import recovery

PROBE = [
    "-e", "probe", "-d", "none", "-m", "none", "--set", "steps=2", "--seed", "1", "--seed", "2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "CONFIG", "LOCKS", "LOG_ROOT"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name.lower()))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)


def test_print_writes_suite_and_script_and_submits_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["submit", *PROBE, "--print", "--sbatch=--comment=pytorch"])
    assert done.exit_code == 0, done.stderr
    [folder] = suite.list_suites(tmp_path / "log_root")
    assert done.stdout == submission.script_path(folder).read_text()
    assert "#SBATCH --array=1-2\n" in done.stdout
    assert "#SBATCH --comment=pytorch\n" in done.stdout
    assert f"export WORKBENCH_CACHE={tmp_path}/cache\n" in done.stdout
    assert f"sbatch {submission.script_path(folder)}" in done.stderr
    submitted = submission.read_submission(folder)
    assert submitted is not None
    assert (submitted.jobs, submitted.submitted_wall) == ({}, 0.0)
    state = suite_reader.SuiteReader(folder).poll()
    assert (state.warden, state.detail) == ("queued", "slurm: 2 not submitted")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"devices": (0,)}, "Slurm chooses the GPUs"),
        ({}, "sbatch is not on this machine"),
        (
            {"search": {"metric": "m", "ranges": {"lr": {"low": 1e-5, "high": 1e-3}}}},
            "its trials are chosen one after the other",
        ),
    ],
)
def test_what_cannot_be_submitted(
    fields: dict[str, object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    table = {"engine": "probe", "subsets": ["none"], "models": ["none"], **fields}
    problems = find_problems(plan.parse(table, "test"), print_only=False)
    assert any(sentence in problem for problem in problems)


def test_a_detached_suite_is_refused_inside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    start.check_detach()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(SuiteError, match="inside Slurm job 12"):
        start.check_detach()


def test_a_run_on_two_nodes_is_submitted_and_does_not_start_here(tmp_path: Path) -> None:
    words = [
        "-e", "retrieval", "-d", "emoji_train", "-m", "clip-nano", "--cpu", "--set", "nnodes=2",
    ]  # fmt: skip
    done = CliRunner().invoke(app, ["run", *words, "--headless"])
    assert done.exit_code == ExitCode.FAILED
    assert "nnodes = 2: `workbench submit` runs it in a job" in str(done.exception)
    assert not suite.list_suites(tmp_path / "log_root")
    done = CliRunner().invoke(app, ["submit", *words, "--print"])
    assert done.exit_code == 0, done.stderr
    assert "#SBATCH --nodes=2\n" in done.stdout


@pytest.mark.parametrize(
    ("sacct", "detail"),
    [
        ("echo '7_1|OUT_OF_MEMORY|None|gpu07|week'", "job 7_1: OUT_OF_MEMORY"),
        ("echo '7_1|TIMEOUT|TimeLimit|gpu07|week'", "job 7_1: TIMEOUT (TimeLimit)"),
        ("echo '7_1|RUNNING|None|gpu07|week'", "job 7_1: unknown: the accounting does not have it"),
        (
            "echo 'Slurm accounting storage is disabled' >&2; exit 1",
            "job 7_1: unknown: no accounting (sacct: Slurm accounting storage is disabled)",
        ),
        (
            "",
            "job 7_1: unknown: no accounting (sacct cannot be started: No such file or directory)",
        ),
    ],
)
def test_how_a_job_ended_that_has_left_the_queue_is_the_word_of_the_accounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sacct: str, detail: str
) -> None:
    assert CliRunner().invoke(app, ["submit", *PROBE, "--print"]).exit_code == 0
    [folder] = suite.list_suites(tmp_path / "log_root")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, command in (("squeue", "exit 0"), ("sacct", sacct)):
        if command:
            (programs / name).write_text(f"#!/bin/sh\n{command}\n")
            (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    submitted = submission.read_submission(folder)
    assert submitted is not None
    run, spec = suite.read_runs(folder)[0]
    changes = {"jobs": {spec.run_id: "7_1"}, "submitted_wall": time.time()}
    submission.write_submission(folder, submitted.model_copy(update=changes))
    with Journal.open(run / "events.jsonl") as journal:
        journal.write("warden", Attempt(number=1, pid=1))
    assert recovery.recover_tasks(folder) == [spec.run_id]
    end = suite_reader.SuiteReader(folder).poll().runs[0].state.end
    assert end is not None
    assert (end.cause, end.detail) == ("supervisor-lost", detail)
