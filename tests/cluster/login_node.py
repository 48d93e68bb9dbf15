"""The commands of a person on the login node of the test cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from results.records.schema import RunRecord
from tests.cluster.slurm_node import SlurmNode
from workbench.suites import suite, suite_reader
from workbench.suites.journal import Tail
from workbench.suites.state import RunState, reduce_entries

T = TypeVar("T")
PATIENCE = 400.0
"""Longest wait for anything, in seconds: `make test` may run on the same two cores."""
PROBE = """
name = "probe"
engine = "probe"
subsets = ["none"]
models = ["none"]
seeds = {seeds}
[settings]
steps = {steps}
warmup_steps = 1
rounds = 1
delay_seconds = {delay}
"""
"""One run with delays, no torch; three lines of its plan are open."""
TRAINING = """
name = "train"
engine = "retrieval"
[settings]
data_root = "{data}"
threads = 1
num_workers = 0
batch = 8
image_size = 32
max_length = 24
epochs = 10000
max_steps = {steps}
timing_warmup_steps = 1
evaluate_on = []
[[run]]
label = "train"
model = "clip-nano"
subset = "tiny_train"
"""
"""One training of two small towers."""


class LoginNode:
    """One log root, and commands on it."""

    def __init__(self, node: SlurmNode, tiny: Path, folder: Path) -> None:
        self.node, self.tiny, self.folder = node, tiny, folder
        self.logs = folder / "bench_logs"
        self.environment = {
            **node.environment, "HOME": str(folder), "USER": "root", "LANG": "C.UTF-8",
            "WORKBENCH_CACHE": str(tiny / "cache"), "WORKBENCH_CONFIG": str(tiny / "config"),
            "WORKBENCH_LOCKS": str(folder / "locks"), "TMPDIR": str(folder),
        }  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "workbench", *words], cwd=self.folder, env=self.environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def workbench(self, *words: str, code: int = 0) -> str:
        """Output of a command, both streams; its exit code is `code`."""
        with self.start(*words) as process:
            output, errors = process.communicate(timeout=300)
        assert process.returncode == code, errors + output
        return output + errors

    def submit(self, plan: str, *words: str) -> Path:
        """Submit a plan; returns the suite's folder."""
        path = self.folder / "plan.toml"
        path.write_text(plan)
        self.workbench("submit", str(path), *words)
        return suite.list_suites(self.logs)[0]

    def jobs(self, folder: Path) -> dict[str, str]:
        """Run id -> job."""
        jobs: dict[str, str] = json.loads((folder / "slurm/jobs.json").read_text())["jobs"]
        return jobs

    def run_state(self, folder: Path, number: int) -> RunState:
        """State of one run as its journal has it."""
        run = folder / "runs" / suite.sort_run_names(suite.list_run_names(folder))[number - 1]
        return reduce_entries(Tail(run / "events.jsonl").read_all())

    def notices(self, folder: Path) -> str:
        """Texts of the first run's notices."""
        return "\n".join(notice.text for notice in self.run_state(folder, 1).notices)

    def weights(self, folder: Path) -> bytes:
        """The last checkpoint's weights of the first run."""
        (path,) = folder.glob("runs/01-*/checkpoints/last/model.safetensors")
        return path.read_bytes()

    def start_requeued(self, job: str) -> None:
        """Let a requeued job start at once, and not two minutes later.

        Not before the last session's daemon has gone: Slurm would take its late message for one of
        the next session.
        """
        self.wait(lambda: self.node.state(job) == "PENDING")
        number = self.node.run("squeue", "--noheader", "--format=%A", f"--jobs={job}").strip()
        self.wait(lambda: not self.node.find_processes(f"slurmstepd: [{number}."))
        self.node.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait(self, question: Callable[[], T], seconds: float = PATIENCE) -> T:
        """The first answer that is true."""
        deadline = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.1)
        return answer

    def wait_for_end(self, folder: Path, seconds: float = PATIENCE) -> list[str]:
        """The causes of all runs, once no job of the suite is left."""
        self.workbench("attach", folder.name, code=self.exit_code(folder, seconds))
        return [run.state.cause for run in suite_reader.SuiteReader(folder).poll().runs]

    def exit_code(self, folder: Path, seconds: float) -> int:
        from workbench.headless.follow import exit_status

        os.environ.update(self.node.environment)
        reader = suite_reader.SuiteReader(folder)
        self.wait(lambda: reader.poll().ended, seconds)
        self.workbench("ps", "--all")  # ends what was killed
        return int(exit_status(reader.poll()))

    def records(self) -> list[RunRecord]:
        """All records, after they were collected."""
        self.workbench("results", "list")
        lines = (self.logs / "results.jsonl").read_text().splitlines()
        return [RunRecord.model_validate_json(line) for line in lines]

    def describe(self) -> str:
        """What the cluster and the jobs say, for a failed test."""
        logs = [f"{p}:\n{p.read_text()[-3000:]}" for p in sorted(self.logs.glob("*/slurm/*.log"))]
        return "\n".join([self.node.run("squeue", "--states=all", check=False), *logs])
