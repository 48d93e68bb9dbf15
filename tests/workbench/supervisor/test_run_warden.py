"""Wardens of single runs of a suite, side by side, as tasks of a queue."""

from __future__ import annotations

import os
import signal

import pytest

from results.records import store
from tests.fixtures.wardens import Sandbox, end_of, entries, until
from workbench.slurm import collector
from workbench.suites import suite, warden_file
from workbench.supervisor import recovery


def test_wardens_of_two_runs_write_only_into_their_folders(sandbox: Sandbox) -> None:
    sandbox.environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    folder = sandbox.suite("polite", "ok", "ok", needs={2: [0]})
    runs = sorted((folder / "runs").iterdir())
    first = sandbox.start(folder, run=runs[0].name)
    sandbox.until_step(folder)
    second = sandbox.start(folder, run=runs[1].name)
    assert second.wait(30) == 0
    warden = warden_file.read_warden(runs[0])
    assert warden is not None
    os.kill(warden.pid, signal.SIGUSR2)
    assert first.wait(30) == 0
    third = sandbox.start(folder, run=runs[2].name)
    assert third.wait(30) == 0
    assert [end_of(folder, index).cause for index in range(3)] == [
        "stopped", "completed", "skipped",
    ]  # fmt: skip
    assert end_of(folder, 2).need == runs[0].name
    assert getattr(warden_file.read_warden(runs[0]), "suspended", False)
    assert {path.name for path in folder.iterdir()} == {"plan.toml", "runs", "warden.log"}
    assert not (sandbox.logs / "results.jsonl").exists()
    (folder / "slurm").mkdir()  # what `submit` makes
    assert collector.collect_records(sandbox.logs) == 3
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [record.exit.cause for record in records] == ["stopped", "completed", "skipped"]
    assert [record.environment.job for record in records] == ["7_1", "7_1", ""]


@pytest.mark.parametrize(("job", "killed"), [("7", False), ("", True)])
def test_the_second_sigterm_to_a_job_does_not_cut_its_save(
    sandbox: Sandbox, job: str, *, killed: bool
) -> None:
    """Slurm sends it to all processes of a job, one of which passes it on to the warden."""
    sandbox.environment |= {"SLURM_JOB_ID": job} if job else {}
    folder = sandbox.suite("slow-save")
    [run] = (folder / "runs").iterdir()
    task = sandbox.start(folder, run=run.name)
    sandbox.until_step(folder)
    warden = warden_file.read_warden(run)
    assert warden is not None
    os.kill(warden.pid, signal.SIGUSR2)
    until(lambda: any(getattr(e.msg, "name", "") == "save" for e in entries(folder)), "the save")
    os.kill(warden.pid, signal.SIGTERM)
    os.kill(warden.pid, signal.SIGTERM)
    assert task.wait(30) == 0
    assert end_of(folder).cause == "stopped"
    assert bool(end_of(folder).killed) == killed


def test_a_run_whose_job_was_killed_is_recovered_once(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite")
    [run] = (folder / "runs").iterdir()
    guard = sandbox.start(folder, run=run.name)
    sandbox.until_step(folder)
    warden = warden_file.read_warden(run)
    assert warden is not None
    spec = suite.read_runs(folder)[0][1]
    assert not recovery.recover_run(run, spec, "job 7_1"), "it is at work"
    guard.kill()
    os.kill(warden.pid, signal.SIGKILL)
    guard.wait()
    until(lambda: not warden_file.is_alive(warden), "the warden's death")
    assert recovery.recover_run(run, spec, "job 7_1: OUT_OF_MEMORY")
    assert not recovery.recover_run(run, spec, "job 7_1: OUT_OF_MEMORY")
    end = end_of(folder)
    assert (end.cause, end.detail) == ("supervisor-lost", "job 7_1: OUT_OF_MEMORY")
    [record] = store.read_records(run / "records.jsonl")
    assert record.exit.cause == "supervisor-lost"
    assert getattr(warden_file.read_warden(run), "state", "") == "lost"
