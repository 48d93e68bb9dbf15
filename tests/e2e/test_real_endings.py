"""Endings of the real retrieval engine with two loader workers, alone and with two ranks.

Afterwards nothing that carries the run's token is left (the sandbox asserts it), the record has the
true cause, and `workbench resume` goes on from a whole checkpoint.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.records import store
from tests.engines.tiny_retrieval import write_tiny_subset
from tests.fixtures.wardens import Sandbox, until
from workbench.processes import tree
from workbench.suites import control, suite, suite_reader, warden_file
from workbench.supervisor import resume

SETTINGS = ["epochs=1000", "max_steps=100000", "checkpoint_every=20", "num_workers=2", "threads=1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_subset(folder)
    return folder


@pytest.fixture
def sandbox(tmp_path: Path, tiny: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path).knowing(tiny) as sandbox:
        sandbox.environment["WORKBENCH_GRACE"] = "8"
        yield sandbox


class Foreground:
    """`workbench run` at a terminal of its own, its engine in training."""

    def __init__(self, sandbox: Sandbox, tiny: Path, ranks: int) -> None:
        settings = [*SETTINGS, f"nproc_per_node={ranks}", f"data_root={tiny / 'data'}"]
        words = ["run", "-e", "retrieval", "-d", "tiny_train", "-m", "pico", "--headless"]
        words += [word for setting in settings for word in ("--set", setting)]
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(sandbox.root)
            command = [sys.executable, "-m", "workbench", *words]
            os.execve(sys.executable, command, sandbox.environment)
        self.sandbox = sandbox
        until(lambda: sandbox.logs.exists() and suite.list_suites(sandbox.logs), "a suite")
        self.folder = suite.list_suites(sandbox.logs)[0]
        until(lambda: warden_file.read_warden(self.folder), "a warden")
        self.reader = suite_reader.SuiteReader(self.folder)
        until(lambda: self.run.step >= 25, "training, and a checkpoint", seconds=90)

    @property
    def run(self):
        return self.reader.poll().runs[0].state

    def press(self, keys: int) -> None:
        for _ in range(keys):
            os.write(self.master, b"\x03")
            time.sleep(0.2)

    def hang_up(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def wait(self, seconds: float = 60) -> int:
        """The command's exit status; the terminal is read so that nobody waits for it."""
        deadline = time.monotonic() + seconds
        if self.master >= 0:
            os.set_blocking(self.master, False)
        while time.monotonic() < deadline:
            if self.master >= 0:
                try:
                    os.read(self.master, 65_536)
                except OSError:
                    time.sleep(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"still there after {seconds} s")


def guard_of(run: Foreground) -> int:
    found = tree.read_process(run.sandbox.warden_pid(run.folder))
    assert found is not None
    return found.parent


def do(fault: str, run: Foreground) -> None:
    warden, engine = run.sandbox.warden_pid(run.folder), run.run.pid or 0
    match fault:
        case "ctrl-c" | "ctrl-c 3":
            run.press(int(fault[-1]) if fault[-1].isdigit() else 1)
        case "kill engine":
            os.kill(engine, signal.SIGKILL)
        case "crash":
            os.kill(engine, signal.SIGSEGV)
        case "suspended, then stopped":
            os.kill(engine, signal.SIGSTOP)
            control.send_command(run.folder, control.Command(do="stop"))
        case "kill warden and guard":
            os.kill(guard_of(run), signal.SIGKILL)
            os.kill(warden, signal.SIGKILL)


CAUSES = {
    "ctrl-c": "stopped", "ctrl-c 3": "stopped", "kill engine": "killed", "crash": "failed",
    "kill warden and guard": "supervisor-lost", "suspended, then stopped": "stopped",
}  # fmt: skip
ENDINGS = [
    (1, "ctrl-c"), (1, "crash"), (1, "suspended, then stopped"),
    (2, "ctrl-c 3"), (2, "kill engine"), (2, "kill warden and guard"),
]  # fmt: skip
"""What an engine with threads, or its ranks, could answer in a way of their own. That a dropped
line, a closed terminal and a killed watcher reach the warden has no torch in it: test_endings.py
and test_faults.py. A rank that is killed, and ranks that save after SIGTERM: test_ranks.py."""


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "fault"), ENDINGS)
def test_an_ending_of_the_real_engine(sandbox: Sandbox, tiny: Path, ranks: int, fault: str) -> None:
    run = Foreground(sandbox, tiny, ranks)
    pids = {p for p in tree.descendant_pids(run.run.pid or 0) if p}
    do(fault, run)
    began = time.monotonic()
    run.wait()
    run.hang_up()
    allowed = 5 if ranks == 1 else 40
    until(lambda: not any(Path(f"/proc/{p}").exists() for p in pids), "an empty sandbox", allowed)
    until(lambda: not sandbox.survivors(), "no carrier of the token", allowed)
    resume.prepare_resume(run.folder)  # closes the books where nobody did
    (record,) = store.read_records(sandbox.logs / "results.jsonl")
    assert record.exit.cause == CAUSES[fault]
    assert record.steps >= 25
    assert time.monotonic() - began < 60
    checkpoints = next((run.folder / "runs").iterdir()).glob("checkpoints/step-*")
    # Two where the end came between writing the newer and removing the older one.
    checkpoint = max(checkpoints, key=lambda path: int(path.name.partition("-")[2]))
    saved = json.loads((checkpoint / "state.json").read_text())["step"]
    if fault == "ctrl-c":
        assert saved == record.steps, "asked politely, it saved where it stood"
    assert saved >= 20


SMALL_GPU = """
import json, os, sys
if "engines.child" in sys.orig_argv:
    import torch
    from engines.torchkit.training import loop
    inner = loop.train
    def train(job, *more):
        with open(sys.argv[-1] + "/spec.json") as file:
            asked = json.load(file)["params"]
        now = {**asked, **json.loads(os.environ["WORKBENCH_PARAMS"])}
        forward, count = job.forward, [0]
        def run_out(batch):
            count[0] += 1
            if count[0] > 12 and (now["grad_cache_chunk"] or now["batch"]) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(batch)
        job.forward = run_out
        inner(job, *more)
    loop.train = train
"""
"""Torch's own error from the 13th step on, above eight items at once: a GPU of nearly the size."""


@pytest.mark.slow
def test_out_of_memory_goes_on_in_smaller_chunks_from_the_checkpoint(
    sandbox: Sandbox, tiny: Path
) -> None:
    (sandbox.root / "sitecustomize.py").write_text(SMALL_GPU)
    sandbox.environment["PYTHONPATH"] += f":{sandbox.root}"
    words = [sys.executable, "-m", "workbench", "run", "-e", "retrieval", "-d", "tiny_train"]
    words += ["-m", "pico", "--headless"]
    settings = [
        "epochs=20",
        "max_steps=30",
        "batch=16",
        "checkpoint_every=5",
        "timing_warmup_steps=2",
        "threads=1",
    ]
    for setting in [*settings, f"data_root={tiny / 'data'}"]:
        words += ["--set", setting]
    done = subprocess.run(
        words, env=sandbox.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = store.read_records(sandbox.logs / "results.jsonl")
    assert (first.exit.cause, second.exit.cause) == ("oom-cuda", "completed")
    assert first.steps == 12
    assert "next attempt computes 8 at once instead of 16" in first.exit.detail
    assert "resumed: goes on after step 10 of 30" in second.notices
    assert second.facts["batch"] == "16 (2 × 8)"
    assert second.facts["grad_cache"].startswith("chunks of 8")
    assert "OOM ×1, batch 16 (2 × 8), attempt 2" in done.stdout
