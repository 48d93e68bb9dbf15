"""The commands of a person on the login node of the test cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from results.records.schema import RunRecord
from tests.cluster.slurm_node import SlurmNode
from workbench.slurm import collector
from workbench.suites import suite, suite_reader
from workbench.suites.journal import Tail
from workbench.suites.state import RunState, reduce_entries
from workbench.supervisor import recovery

T = TypeVar("T")
PATIENCE = 400.0
"""Longest wait for anything, in seconds: `make test` may run on the same two cores."""
POLL_SECONDS = 0.25
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
"""Runs with delays, no torch; three lines of the plan are open."""
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
model = "pico"
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

    def run_here(self, plan: str, *words: str) -> Path:
        """Run a plan without Slurm; returns the suite's folder."""
        path = self.folder / "near.toml"
        path.write_text(plan)
        self.workbench("run", str(path), "--headless", *words)
        return suite.list_suites(self.logs)[0]

    def jobs(self, folder: Path) -> list[str]:
        """The job of each run."""
        jobs: dict[str, str] = json.loads((folder / "slurm/jobs.json").read_text())["jobs"]
        return [jobs[run] for run in suite.sort_run_names(list(jobs))]

    def run_state(self, folder: Path, number: int) -> RunState:
        """State of one run as its journal has it."""
        run = folder / "runs" / suite.sort_run_names(suite.list_run_names(folder))[number - 1]
        return reduce_entries(Tail(run / "events.jsonl").read_all())

    def wait_for_step(self, folder: Path, number: int, step: int, attempt: int = 1) -> RunState:
        """The state of a run whose attempt has done so many steps."""

        def reach_step() -> RunState | None:
            run = self.run_state(folder, number)
            return run if run.attempt == attempt and run.last and run.step >= step else None

        return self.wait(reach_step)

    def wait_for_cause(self, folder: Path, number: int, cause: str) -> RunState:
        """The state of a run once it has ended with that cause."""
        self.wait(lambda: self.run_state(folder, number).cause == cause)
        return self.run_state(folder, number)

    def weights(self, folder: Path) -> bytes:
        """The last checkpoint's weights of the first run."""
        (path,) = folder.glob("runs/01-*/checkpoints/last/model.safetensors")
        return path.read_bytes()

    def shorten_limit(self, job: str, started_wall: float) -> None:
        """Let a running job's time end within 100 seconds; `started_wall`: when it began.

        The cluster's limits are whole minutes, of which it looks twice a minute what is left.
        """
        minutes = 1 + int((time.time() - started_wall + 40) / 60)
        self.node.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def start_requeued(self, job: str, minutes: int = 10) -> None:
        """Let a requeued job start now, and not two minutes later, with a new time limit.

        Not before the last session's daemon has gone: Slurm would take its late message for one of
        the next session. Nor in the same second: the node revokes credentials by whole seconds
        ("Job already killed, do not launch"), and the job would fail.
        """
        self.wait(lambda: self.node.state(job) == "PENDING")
        number = self.node.run("squeue", "--noheader", "--format=%A", f"--jobs={job}").strip()
        self.wait(lambda: not self.node.find_processes(f"slurmstepd: [{number}."))
        gone = time.monotonic()
        self.wait(lambda: time.monotonic() > gone + 2)
        self.node.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}", "StartTime=now")

    def wait(self, question: Callable[[], T | None]) -> T:
        """The first answer that is true."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := question()):
            assert time.monotonic() < deadline, self.describe()
            time.sleep(POLL_SECONDS)
        return answer

    def wait_for_end(self, folder: Path) -> list[str]:
        """The causes of all runs, once no job of the suite is left."""
        reader = suite_reader.SuiteReader(folder)
        self.wait(lambda: reader.poll().ended)
        recovery.recover_tasks(folder)  # as `ps` and `attach` do
        return [run.state.cause for run in reader.poll().runs]

    def records(self) -> list[RunRecord]:
        """All records, after they were collected."""
        collector.collect_records(self.logs)
        lines = (self.logs / "results.jsonl").read_text().splitlines()
        return [RunRecord.model_validate_json(line) for line in lines]

    def describe(self) -> str:
        """What the cluster and the jobs say, for a failed test."""
        logs = [f"{p}:\n{p.read_text()[-3000:]}" for p in sorted(self.logs.glob("*/slurm/*.log"))]
        return "\n".join([self.node.run("squeue", "--states=all", check=False), *logs])
