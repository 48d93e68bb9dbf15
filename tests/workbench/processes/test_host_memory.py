"""Memory that may be used: control groups of both versions, and Slurm's limits."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from workbench.processes import host_memory

GIB = 1 << 30


def cgroup(tmp_path: Path, text: str, files: dict[str, str]) -> host_memory.CgroupLimits:
    (tmp_path / "self").write_text(text)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return host_memory.read_cgroup_limits(tmp_path / "self", tmp_path / "fs")


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    allowed = cgroup(
        tmp_path, "0::/a/b\n",
        {"a/b/memory.max": "max\n", "a/memory.max": f"{4 * GIB}\n", "memory.max": f"{9 * GIB}\n",
         "a/b/cpu.max": "150000 100000\n", "a/cpu.max": "max 100000\n", "a/pids.max": "100\n"},
    )  # fmt: skip
    assert allowed == host_memory.CgroupLimits(4 * GIB, 1.5, 100)


def test_version_1_of_control_groups(tmp_path: Path) -> None:
    allowed = cgroup(
        tmp_path, "5:memory:/x\n4:cpu,cpuacct:/x\n",
        {"memory/x/memory.limit_in_bytes": f"{GIB}\n", "memory/memory.limit_in_bytes": f"{1 << 62}",
         "cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
    )  # fmt: skip
    assert allowed == host_memory.CgroupLimits(GIB, 0.5, None)


def test_control_groups_that_are_not_there_or_lie_elsewhere(tmp_path: Path) -> None:
    assert host_memory.read_cgroup_limits(tmp_path / "none", tmp_path) == host_memory.CgroupLimits()
    outside = cgroup(tmp_path, "0::/../../elsewhere\n", {"memory.max": f"{GIB}\n"})
    assert outside.memory_bytes == GIB, "in another namespace the visible root is ours"
    assert cgroup(tmp_path, "garbage\n", {}) == host_memory.CgroupLimits()


@pytest.mark.parametrize(
    ("variables", "mebibytes"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "2048"}, 2048),
        ({"SLURM_MEM_PER_NODE": "0"}, None),  # all of the node
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "4"}, 2000),
        ({"SLURM_MEM_PER_CPU": "500"}, None),
        ({"SLURM_MEM_PER_NODE": "lots"}, None),
    ],
)
def test_the_memory_of_a_slurm_job(variables: dict[str, str], mebibytes: int | None) -> None:
    limit = host_memory.read_job_memory(variables)
    assert limit == (None if mebibytes is None else mebibytes << 20)


def test_a_job_may_use_no_more_than_it_was_given() -> None:
    usable = host_memory.read_memory({"SLURM_MEM_PER_NODE": "1"})
    assert usable == host_memory.UsableMemory(1 << 20, 1 << 20)
    assert host_memory.read_memory({}).total <= psutil.virtual_memory().total
