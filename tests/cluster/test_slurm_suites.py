"""Suites as jobs of a real Slurm: what is done on a cluster, and what goes wrong there."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.login_node import PROBE, TRAINING, LoginNode
from workbench.suites import suite, suite_reader

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

EVALUATION = """
[[run]]
label = "test"
task = "evaluate"
model = "run:train"
subset = "tiny_val"
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
    plan = PROBE.format(seeds=[1, 2, 3, 4, 5, 6], steps=20, delay=0.1)
    folder = login.submit(plan, "--array-parallel", "2", "--time", "10", "--sbatch=--hold")
    jobs = login.jobs(folder)
    assert len(jobs) == 6
    assert "queued" in login.workbench("ps")
    with login.start("attach", folder.name) as attached:
        assert attached.stderr is not None
        line = attached.stderr.readline()
        assert "6 PENDING (JobHeldUser)" in line
        login.node.run("scontrol", "release", jobs["01-probe-none-none-s1"].partition("_")[0])
        _, errors = attached.communicate(timeout=200)
    assert attached.returncode == 0, errors
    assert re.search(r"slurm \d+_\d · ", errors)
    assert at_once(login, folder, 6) == 2
    records = login.records()
    assert [r.exit.cause for r in records] == ["completed"] * 6
    assert [r.environment.job for r in records] == list(jobs.values())
    assert login.records() == records  # collected once
    far = login.workbench("report", folder.name)
    login.workbench("run", str(login.folder / "plan.toml"), "--headless")
    near = suite.list_suites(login.logs)[0].name
    assert without_figures(login.workbench("report", near), near) == without_figures(
        far, folder.name
    )


def test_gpus_are_those_of_the_job(login: LoginNode) -> None:
    plan = PROBE.format(seeds=[1, 2], steps=10, delay=0.3)
    folder = login.submit(plan, "--sbatch=--gres=gpu:1")
    assert login.wait_for_end(folder) == ["completed", "completed"]
    visible = {r.environment.cuda_visible_devices for r in login.records()}
    assert visible == {"0", "1"}


def test_a_killed_task_is_named_and_goes_on_when_it_is_submitted_again(login: LoginNode) -> None:
    folder = login.submit(PROBE.format(seeds=[1, 2], steps=300, delay=0.1))
    login.wait(lambda: login.run_state(folder, 1).step > 3)
    login.wait(lambda: login.run_state(folder, 2).step > 3)
    engine = login.run_state(folder, 2).pid
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    signal_task(login.jobs(folder)["01-probe-none-none-s1"], signal.SIGKILL)
    assert login.wait_for_end(folder) == ["supervisor-lost", "killed"]
    detail = login.run_state(folder, 1).end
    assert detail is not None
    assert "FAILED" in detail.detail
    login.workbench("resume", folder.name)
    login.wait(lambda: login.run_state(folder, 1).attempt == 2)
    login.wait(lambda: login.run_state(folder, 2).attempt == 2)
    assert login.wait_for_end(folder) == ["completed", "completed"]
    assert sorted((r.identity.attempt, r.exit.cause) for r in login.records()) == [
        (1, "killed"), (1, "supervisor-lost"), (2, "completed"), (2, "completed"),
    ]  # fmt: skip


def test_scancel_stops_at_a_checkpoint_and_a_kill_meanwhile_costs_no_other(
    login: LoginNode,
) -> None:
    """SIGCONT, SIGTERM, and SIGKILL after KillWait, of which the first stop needs a part."""
    plan = TRAINING.format(data=login.tiny / "data", steps=300)
    plan = plan.replace("[[run]]", "checkpoint_every = 10\n[[run]]")
    folder = login.submit(plan, "--cpu")

    def work(attempt: int) -> str:
        login.wait(lambda: login.run_state(folder, 1).attempt == attempt)
        before = login.run_state(folder, 1).step
        login.wait(lambda: login.run_state(folder, 1).step > before + 20)
        return next(iter(login.jobs(folder).values()))

    login.node.run("scancel", work(1))
    assert login.wait_for_end(folder) == ["stopped"]
    stopped = login.run_state(folder, 1)
    assert stopped.end is not None
    assert stopped.end.killed == ()
    login.workbench("resume", folder.name)
    job = work(2)
    assert f"goes on after step {stopped.step}" in login.notices(folder)
    login.node.run("scancel", job)
    signal_task(job, signal.SIGKILL)  # as at the end of its grace: amid the stop, or just after it
    assert login.wait_for_end(folder)[0] in ("supervisor-lost", "stopped")
    login.workbench("resume", folder.name)
    assert login.wait_for_end(folder) == ["completed"]
    assert login.run_state(folder, 1).attempt == 3
    login.workbench("run", str(login.folder / "plan.toml"), "--headless", "--cpu")
    assert login.weights(suite.list_suites(login.logs)[0]) == login.weights(folder)


def test_stop_from_the_login_node(login: LoginNode) -> None:
    plan = PROBE.format(seeds=[1, 2, 3], steps=3000, delay=0.1)
    folder = login.submit(plan, "--array-parallel", "1")
    login.wait(lambda: login.run_state(folder, 1).step > 3)
    login.workbench("stop", folder.name)
    assert [r.exit.cause for r in login.records()] == ["stopped"] * 3
    assert login.run_state(folder, 2).attempt == 0
    assert "nothing" not in login.workbench("ps", "--all")
    assert not login.node.run("squeue", "--noheader", "--states=PENDING,RUNNING").strip()


@pytest.mark.slow
def test_preemption_requeues_and_the_run_goes_on(login: LoginNode) -> None:
    plan = TRAINING.format(data=login.tiny / "data", steps=300)
    folder = login.submit(plan, "--cpu", "--sbatch=--cpus-per-task=2", "--time", "10")
    job = next(iter(login.jobs(folder).values()))
    login.wait(lambda: login.run_state(folder, 1).step > 20)
    login.node.run("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null",
                   "--wrap=sleep 3")  # fmt: skip
    login.wait(lambda: login.run_state(folder, 1).cause == "stopped")
    reader = suite_reader.SuiteReader(folder)
    os.environ.update(login.node.environment)
    login.wait(lambda: reader.poll().warden == "queued")
    login.start_requeued(job)
    assert login.wait_for_end(folder) == ["completed"]
    run = login.run_state(folder, 1)
    assert run.attempt == 2
    assert any(notice.code == "resumed" for notice in run.notices)


@pytest.mark.slow
def test_a_time_limit_requeues_to_the_same_weights_and_then_what_needs_them(
    login: LoginNode,
) -> None:
    """Two jobs, the second of which depends on the first; the first takes two sessions."""
    data = login.tiny / "data"
    (login.folder / "short.toml").write_text(TRAINING.format(data=data, steps=200))
    login.workbench("run", str(login.folder / "short.toml"), "--headless", "--cpu")
    first = suite.list_suites(login.logs)[0]
    seconds = login.run_state(first, 1).step_seconds
    assert seconds is not None
    plan = TRAINING.format(data=data, steps=int(65 / seconds)) + EVALUATION
    clusters = login.tiny / "config/clusters"
    clusters.mkdir(exist_ok=True)
    (clusters / "short.toml").write_text('time = "2"\nsignal_seconds = 60\n')
    folder = login.submit(plan, "--cpu", "--cluster", "short")
    jobs = login.jobs(folder)
    train, test = jobs.values()
    login.wait(lambda: login.node.state(train) == "RUNNING")
    assert login.node.state(test) == "PENDING"
    login.wait(lambda: login.run_state(folder, 1).cause == "stopped")
    while login.node.state(train) not in ("COMPLETED", "FAILED"):
        if login.node.state(train) == "PENDING":  # the node was slower than it was measured
            login.start_requeued(train)
        time.sleep(1)
    assert login.node.state(train) == "COMPLETED", login.describe()
    assert login.wait_for_end(folder) == ["completed", "completed"]
    assert login.run_state(folder, 1).attempt >= 2
    login.workbench("run", str(login.folder / "plan.toml"), "--headless", "--cpu")
    undisturbed = suite.list_suites(login.logs)[0]
    assert login.weights(undisturbed) == login.weights(folder)
    metrics = [
        {m.name: m.value for m in login.run_state(f, 2).metrics} for f in (undisturbed, folder)
    ]
    assert metrics[0] == metrics[1]
