"""One model trained on two nodes of a real Slurm."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.login_node import TRAINING, LoginNode

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]


def plan(login: LoginNode, steps: int, setting: str) -> str:
    text = TRAINING.format(data=login.tiny / "data", steps=steps)
    return text.replace("batch = 8", f"batch = 4\n{setting} = 2")


def find_rank(number: int) -> int | None:
    """Process of a rank, on whichever node."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"\0RANK={number}\0".encode() in environment:
            return int(process.name)
    return None


def test_ranks_of_two_nodes_stop_and_go_on_and_train_as_two_of_one_node(login: LoginNode) -> None:
    folder = login.submit(plan(login, 300, "nnodes"), "--cpu", "--sbatch=--partition=pair")
    (job,) = login.jobs(folder)
    login.wait_for_step(folder, 1, 4)
    login.node.run("scancel", "--batch", "--signal=USR2", job)
    stopped = login.wait_for_cause(folder, 1, "stopped")
    assert stopped.step < 300
    login.start_requeued(job)
    assert login.wait_for_end(folder) == ["completed"], login.describe()
    assert any(notice.code == "resumed" for notice in login.run_state(folder, 1).notices)
    record = login.records()[-1]
    assert record.environment.nodes == ("pair1", "pair2")
    assert record.memory.rss_tree_peak.reason == "sampled on one of its 2 nodes only"
    assert record.memory.rss_main_peak.value
    assert "pair1, pair2 · slurm" in login.workbench("report", folder.name)
    near = login.run_here(plan(login, 300, "nproc_per_node"), "--cpu")
    assert login.weights(folder) == login.weights(near)
    states = [login.run_state(f, 1) for f in (folder, near)]
    assert states[0].last is not None
    assert states[1].last is not None
    assert states[0].last.loss == states[1].last.loss
    assert states[0].plan is not None
    assert states[0].plan.effective_batch == 8


def test_nothing_of_a_run_on_two_nodes_outlives_a_rank_or_its_engine(login: LoginNode) -> None:
    folder = login.submit(plan(login, 9000, "nnodes"), "--cpu", "--sbatch=--partition=pair")
    login.wait_for_step(folder, 1, 4)
    rank = login.wait(lambda: find_rank(1))
    os.kill(rank, signal.SIGKILL)
    assert login.wait_for_end(folder) == ["failed"]
    end = login.run_state(folder, 1).end
    assert end is not None
    assert "rank 1 was ended by SIGKILL" in end.detail
    assert login.wait(lambda: find_rank(1) is None and find_rank(0) is None)
    login.workbench("resume", folder.name)
    engine = login.wait_for_step(folder, 1, 4, attempt=2).pid
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    assert login.wait_for_end(folder) == ["killed"]
    assert login.wait(lambda: find_rank(1) is None and find_rank(0) is None)
