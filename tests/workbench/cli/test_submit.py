"""`workbench submit` without a cluster: the script, what is refused, and a task without Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli import start
from workbench.cli.main import app
from workbench.cli.submit import find_problems
from workbench.exit_codes import ExitCode
from workbench.planning import plan
from workbench.slurm import submission
from workbench.suites import suite, suite_reader
from workbench.suites.suite import SuiteError

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
