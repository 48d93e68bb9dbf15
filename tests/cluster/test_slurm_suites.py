"""Suites as jobs of a real Slurm: what is done on a cluster, and what goes wrong there.

Three suites show all of it, since each task costs a second of CPU time before its first step.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.login_node import PROBE, TRAINING, LoginNode
from workbench.slurm import collector
from workbench.suites import suite_reader

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

EVALUATION = """
[[run]]
label = "test"
task = "evaluate"
model = "run:train"
subset = "tiny_val"
"""
SLOW_THIRD_RUN = """
[[override]]
seed = 3
settings = { steps = 3, delay_seconds = 5 }
"""


def at_once(login: LoginNode, folder: Path, count: int) -> int:
    """How many runs were at work at the same time, at most."""
    spans = []
    for number in range(1, count + 1):
        run = login.run_state(folder, number)
        assert run.started_wall is not None
        assert run.ended_wall is not None
        spans.append((run.started_wall, run.ended_wall))
    return max(sum(a <= start < b for a, b in spans) for start, _ in spans)


def without_figures(report: str, name: str) -> list[str]:
    """Lines of a report without times, places and the suite's name."""
    lines = [line for line in report.splitlines() if not line.startswith("- Host")]
    text = "\n".join(lines).replace(name, "SUITE")
    text = re.sub(r"\d[\d,.:]*( ?(ms|µs|s|min|MiB|GiB|h)\b)?", "N", text)
    text = re.sub(r"(N[–-])?N", "N", text).replace("**differ by N %**", "yes")  # two rates
    return sorted(re.sub(r"[ -]{2,}", " ", text).splitlines())


def signal_task(job: str, number: signal.Signals) -> None:
    """Signal all processes of a task; SIGKILL is what a node does that loses its power."""
    array, _, task = job.partition("_")
    marks = [f"SLURM_ARRAY_JOB_ID={array}\0", f"SLURM_ARRAY_TASK_ID={task}\0"]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_text()
        except OSError:
            continue
        if all(mark in environment for mark in marks):
            os.kill(int(process.name), number)


def test_an_array_two_at_a_time_reports_as_the_same_plan_does_here(login: LoginNode) -> None:
    """The node has room for four of its six tasks."""
    plan = PROBE.format(seeds=[1, 2, 3, 4, 5, 6], steps=10, delay=0.2)
    folder = login.submit(plan, "--array-parallel", "2", "--time", "10", "--sbatch=--hold")
    jobs = login.jobs(folder)
    assert len(jobs) == 6
    assert "queued" in login.workbench("ps")
    with login.start("attach", folder.name) as attached:
        assert attached.stderr is not None
        line = attached.stderr.readline()
        assert "6 PENDING (JobHeldUser)" in line
        login.node.run("scontrol", "release", jobs[0].partition("_")[0])
        _, errors = attached.communicate(timeout=200)
    assert attached.returncode == 0, errors
    assert re.search(r"slurm \d+_\d · ", errors)
    assert at_once(login, folder, 6) == 2
    far = login.workbench("report", folder.name)
    assert collector.collect_records(login.logs) == 0, "the report has collected them"
    records = login.records()
    assert [r.exit.cause for r in records] == ["completed"] * 6
    assert [r.environment.job for r in records] == jobs
    near = login.run_here(plan).name
    assert without_figures(login.workbench("report", near), near) == without_figures(
        far, folder.name
    )


def test_runs_that_are_killed_cancelled_preempted_or_stopped_go_on(login: LoginNode) -> None:
    """Five runs, two at a time on a GPU each, each with a fate of its own, are resumed together."""
    plan = PROBE.format(seeds=[1, 2, 3, 4, 5], steps=100, delay=0.2) + SLOW_THIRD_RUN
    folder = login.submit(plan, "--sbatch=--gres=gpu:1")
    lost, _, cancelled, preempted, held = login.jobs(folder)
    login.node.run("scontrol", "hold", held)
    engine = login.wait_for_step(folder, 2, 3).pid
    login.wait_for_step(folder, 1, 3)
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    signal_task(lost, signal.SIGKILL)
    login.wait_for_step(folder, 3, 1)
    login.wait_for_step(folder, 4, 1)
    login.node.run("scancel", cancelled)  # SIGCONT and SIGTERM to all, SIGKILL after KillWait
    login.node.run("sbatch", "--partition=high", "--cpus-per-task=4", "--output=/dev/null",
                   "--wrap=sleep 3")  # fmt: skip
    stopped = login.wait_for_cause(folder, 3, "stopped").end
    assert stopped is not None
    assert stopped.killed == (), "its step, longer than a shutdown stage, was not cut off"
    login.wait_for_cause(folder, 4, "stopped")
    reader = suite_reader.SuiteReader(folder)
    login.wait(lambda: reader.poll().runs[3].state.status == "queued")
    login.start_requeued(preempted)
    login.wait_for_step(folder, 4, 1, attempt=2)
    login.workbench("stop", folder.name)
    causes = ["supervisor-lost", "killed", "stopped", "stopped", "stopped"]
    assert [login.run_state(folder, n).cause for n in range(1, 6)] == causes
    assert not login.node.run("squeue", "--noheader", "--states=PENDING,RUNNING").strip()
    end = login.run_state(folder, 1).end
    assert end is not None
    assert "FAILED" in end.detail
    assert login.run_state(folder, 5).attempt == 0
    first = {r.identity.run_id[:2]: r for r in login.records() if r.exit.cause in causes[:2]}
    assert {r.environment.cuda_visible_devices for r in first.values()} == {"0", "1"}
    login.workbench("resume", folder.name)
    assert login.wait_for_end(folder) == ["completed"] * 5
    exits: dict[str, list[str]] = {}
    for record in login.records():
        exits.setdefault(record.identity.run_id[:2], []).append(record.exit.cause)
    assert exits == {
        "01": ["supervisor-lost", "completed"], "02": ["killed", "completed"],
        "03": ["stopped", "completed"], "04": ["stopped", "stopped", "completed"],
        "05": ["stopped", "completed"],
    }  # fmt: skip


def test_a_time_limit_requeues_to_the_same_weights_and_then_what_needs_them(
    login: LoginNode,
) -> None:
    """Two jobs, the second of which depends on the first; the first takes two sessions."""
    plan = TRAINING.format(data=login.tiny / "data", steps=300) + EVALUATION
    clusters = login.tiny / "config/clusters"
    clusters.mkdir(exist_ok=True)
    (clusters / "short.toml").write_text('time = "10"\nsignal_seconds = 90\n')
    folder = login.submit(plan, "--cpu", "--cluster", "short")
    train, test = login.jobs(folder)
    run = login.wait_for_step(folder, 1, 5)
    assert run.pid is not None
    assert run.started_wall is not None
    os.kill(run.pid, signal.SIGSTOP)  # takes no CPU time until the signal before the limit
    login.shorten_limit(train, run.started_wall)
    stopped = login.wait_for_cause(folder, 1, "stopped")
    assert stopped.step < 300
    login.start_requeued(train)
    assert login.node.state(test) == "PENDING"
    assert login.wait_for_end(folder) == ["completed", "completed"]
    resumed = login.run_state(folder, 1)
    assert resumed.attempt == 2
    assert any(f"goes on after step {stopped.step} of" in notice.text for notice in resumed.notices)
    undisturbed = login.run_here(plan, "--cpu")
    assert login.weights(undisturbed) == login.weights(folder)
    metrics = [
        {m.name: m.value for m in login.run_state(f, 2).metrics} for f in (undisturbed, folder)
    ]
    assert metrics[0] == metrics[1]
    assert metrics[0]
