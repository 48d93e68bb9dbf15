"""The cluster of these tests: `make test-slurm`. Skipped where Slurm is not installed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.login_node import LoginNode
from tests.cluster.slurm_node import SlurmNode, missing_programs
from tests.engines.tiny_retrieval import write_tiny_subset
from workbench.slurm import queue


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_programs()
    reason = f"not installed: {', '.join(missing)}" if missing else ""
    if not missing and os.geteuid() != 0:
        reason = "a cluster's daemons run as root"
    for item in items:
        if item.get_closest_marker("slurm") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def node() -> Iterator[SlurmNode]:
    slurm = SlurmNode()
    try:
        slurm.start()
        with pytest.MonkeyPatch.context() as patch:
            for name, text in slurm.environment.items():
                patch.setenv(name, text)
            yield slurm
            queue.WATCH.read("root", time.time())  # the last squeue of this process has ended
    finally:
        slurm.stop()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small made-up data with its recipes, and a cache for all tests."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_subset(folder)
    return folder


@pytest.fixture
def login(node: SlurmNode, tiny: Path, tmp_path: Path) -> LoginNode:
    return LoginNode(node, tiny, tmp_path)
