"""Ranks on several nodes, with a stand-in for srun that runs its command here, as node 1.

The ranks are of the probe engine, which has no process group. Two real nodes: tests/cluster.
"""

import os
import socket
import sys

import pytest

from engines.emitter import Emitter, EngineError
from engines.messages import Failed
from engines.probe import Params
from engines.protocol import RunSpec
from engines.torchkit.runtime import rank_nodes, rank_processes
from engines.torchkit.runtime.rank_nodes import RankNode

NODES = [RankNode("a", "127.0.0.1"), RankNode("b", "127.0.0.1")]
RUNS_IT = """#!{python}
import os, sys
words = sys.argv[1:]
assert "--nodelist=b" in words and "--ntasks=1" in words, words
os.environ |= {{"SLURM_NODEID": "0", "SLURM_PROCID": "0", **{changes}}}
command = words[words.index({python!r}):]
os.execv(command[0], command)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs two nodes of one rank each, with a program called srun: `run(text)`."""
    params = Params(steps=3, warmup_steps=1, rounds=1).model_dump(mode="json")
    spec = RunSpec(
        suite="s", run_id="01", engine="probe", task="probe", subset="none", model="none",
        cache_root=str(tmp_path), params=params,
    )  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json())
    monkeypatch.setenv("WORKBENCH_T0", "0.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def start(text: str) -> Failed | None:
        (tmp_path / "srun").write_text(text)
        (tmp_path / "srun").chmod(0o755)
        return rank_nodes.run_ranks(1, NODES, folder, Emitter())

    return start


def runs_it(**changes: str) -> str:
    return RUNS_IT.format(python=sys.executable, changes=changes)


def test_both_nodes_end_well(run, tmp_path):
    assert run(runs_it()) is None
    assert (tmp_path / "run/ranks/rank1.log").exists()


def test_a_failure_on_another_node_is_the_run_s(run):
    failed = run(runs_it(WORKBENCH_PARAMS='{"steps": -1}'))
    assert failed is not None
    said = "rank 1: ValidationError: 1 validation error for Params (see ranks/rank1.log)"
    assert failed.error == said


def test_a_node_that_says_nothing_is_named(run):
    failed = run("#!/bin/sh\nexit 7\n")
    assert failed is not None
    assert "node b was lost, srun ended with 7" in failed.error


def test_without_srun_a_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_T0", "0.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"nnodes = 2: srun cannot be started \(No such file"):
        rank_nodes.run_ranks(1, NODES, tmp_path, Emitter())


def test_nodes_are_those_of_the_variable(monkeypatch):
    monkeypatch.setenv(rank_nodes.NODES, "gpu07=10.0.0.7,gpu08=fe80::1")
    assert rank_nodes.read_nodes(2) == [RankNode("gpu07", "10.0.0.7"), RankNode("gpu08", "fe80::1")]
    with pytest.raises(EngineError, match="nnodes = 3: this process has 2 of them; submit"):
        rank_nodes.read_nodes(3)
    monkeypatch.delenv(rank_nodes.NODES)
    with pytest.raises(EngineError, match="has 1 of them"):
        rank_nodes.read_nodes(2)


def test_the_interface_on_the_way_to_another_node():
    assert rank_nodes.find_local_address("127.0.0.1") == "127.0.0.1"
    assert rank_nodes.find_interface("127.0.0.1") == "lo"
    assert rank_nodes.find_interface("203.0.113.9") == ""
    with pytest.raises(EngineError, match=r"node no-such\.invalid cannot be reached"):
        rank_nodes.find_local_address("no-such.invalid")


def test_a_store_is_reached_at_its_own_address_only():
    store = rank_processes.open_store("127.0.0.2")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", store.port), timeout=5)
    socket.create_connection(("127.0.0.2", store.port), timeout=5).close()


def test_ranks_do_not_see_the_step_of_srun(monkeypatch):
    for name in ("SLURM_STEP_ID", "SLURM_CPU_BIND", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("WORKBENCH_BEGAN", "0.0")
    monkeypatch.setenv("WORKBENCH_T0", "0.0")
    rank_nodes.clean_variables()
    left = {name for name in os.environ if name.startswith("SLURM_")}
    assert left == {"SLURM_JOB_ID"}
    assert float(os.environ["WORKBENCH_T0"]) < 0, "1970"
