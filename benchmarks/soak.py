"""Random `kill -9`s over a real suite, each followed by `workbench resume`; then the proof.

    python -m benchmarks.soak --kills 200 --seconds 7200 --seed 1
    python -m benchmarks.soak --kills 50 --lanes 3      # several runs at work at once

Whatever is killed, and whenever: what was acknowledged stays, nothing is left running, nothing
counts as completed that is not, no run has two engines and no lane two runs, and in the end every
run has bitwise the weights and the metrics of a suite that nobody disturbed, on one lane. The runs
are clip-nano on small made-up data, the last one on two ranks. Prints one line a kill and a summary
as JSON; exits with 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from results.records import store
from tests.engines.tiny_retrieval import write_tiny_subset
from workbench.processes import tree
from workbench.suites import suite, suite_reader, warden_file
from workbench.supervisor import resume

WORDS = [
    "-e", "retrieval", "-d", "tiny_train", "-m", "clip-nano", "--headless", "--set", "epochs=100",
    "--set", "max_steps=60", "--set", "checkpoint_every=2", "--set", "batch=8", "--set",
    "num_workers=2", "--set", "threads=1", "--set", "image_size=32", "--set", "max_length=24",
]  # fmt: skip
VICTIMS = {"engine": 6, "rank": 2, "warden": 4, "guard": 1, "both": 2, "command": 3, "watcher": 1}
"""What is killed, and how often in proportion. Loader workers are threads of the engine."""

ORPHAN_SECONDS = 10.0
"""Five are promised, on a machine that has nothing else to do."""


class Soak:
    """One log root that is bombarded."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.logs = root, root / "logs"
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.tokens: set[str] = set()
        self.files: dict[Path, bytes] = {}
        self.front: subprocess.Popen[bytes] | None = None
        write_tiny_subset(root)
        self.environment = {
            **os.environ, "WORKBENCH_CONFIG": str(root / "config"), "WORKBENCH_GRACE": "3",
            "WORKBENCH_CACHE": str(root / "cache"), "WORKBENCH_LOCKS": str(root),
            "WORKBENCH_LOG_ROOT": str(self.logs),
        }  # fmt: skip

    def workbench(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.root / "commands.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "workbench", *words], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start(self, name: str, runs: int, lanes: int = 0) -> Path:
        """A new suite, at work; `lanes` 0: one run at a time."""
        plan = self.root / f"{name}.toml"
        data = json.dumps(str(self.root / "data"))
        override = "" if runs < 3 else "[[override]]\nseed = 3\nsettings = { nproc_per_node = 2 }\n"
        plan.write_text(
            f'schema = 1\nname = "{name}"\nsubsets = ["tiny_train"]\nmodels = ["clip-nano"]\n'
            f"seeds = {list(range(1, runs + 1))}\n[settings]\ndata_root = {data}\n{override}"
        )
        before = set(suite.list_suites(self.logs)) if self.logs.exists() else set()
        several = ["--lanes", str(lanes), "--cpu"] if lanes else []
        self.front = self.workbench("run", str(plan), *WORDS[6:], *several)
        self.wait(lambda: set(suite.list_suites(self.logs)) - before, "a new suite")
        return (set(suite.list_suites(self.logs)) - before).pop()

    def wait(self, condition, description: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"never happened: {description}")
            time.sleep(0.02)

    # One kill

    def kill(self, folder: Path) -> str:
        """Wait for a random moment, kill a random victim; says what."""
        reader = suite_reader.SuiteReader(folder)
        victim = self.random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        watcher = self.workbench("attach", folder.name) if victim == "watcher" else None
        self._moment(reader)
        state = reader.poll()
        warden = warden_file.read_warden(folder)
        if warden is None or not warden_file.is_alive(warden) or state.current is None:
            self._kill(watcher.pid if watcher else 0)
            return "nobody"
        self.tokens.add(warden.token)
        hit_run = self.random.choice(state.working)
        guard, engine = tree.read_process(warden.pid), hit_run.state.pid or 0
        ranks = tree.descendant_pids(engine)[1:] if engine else []
        pids = {
            "engine": [engine], "rank": [self.random.choice(ranks or [engine])],
            "warden": [warden.pid], "guard": [guard.parent if guard else 0],
            "both": [guard.parent if guard else 0, warden.pid],
            "command": [self.front.pid if self.front else 0],
            "watcher": [watcher.pid if watcher else 0],
        }[victim]  # fmt: skip
        hit = [self._kill(pid) for pid in pids]
        if watcher is not None:
            watcher.wait()
        if victim == "command" and self.front is not None:
            self.front.wait()
        if not any(hit):
            return "nobody"
        self.counts[victim] += 1
        self.counts["most at once"] = max(self.counts["most at once"], len(state.working))
        position = f"{hit_run.state.phase or 'start'}, step {hit_run.state.step}"
        return f"{victim} in {position}, {len(state.working)} at work"

    def _kill(self, pid: int) -> bool:
        process = tree.read_process(pid) if pid > 1 else None
        if process is None or process.dead:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def _moment(self, reader: suite_reader.SuiteReader) -> None:
        """Half of the time after some steps of this attempt, otherwise just some seconds later."""
        patience = time.monotonic() + self.random.uniform(0, 8)
        steps = self.random.randrange(1, 25) if self.random.random() < 0.5 else None
        first = None
        while True:
            state = reader.poll()
            current = state.current
            if self.front is None or self.front.poll() is not None:
                return
            if steps is None:
                if time.monotonic() > patience:
                    return
            elif current is not None:
                first = first or (current.spec.run_id, current.state.step)
                moved = current.spec.run_id != first[0] or current.state.step >= first[1] + steps
                if moved or time.monotonic() > patience + 30:
                    return
            time.sleep(0.02)

    # What must hold

    def check(self, folder: Path) -> None:
        """After a kill, and once nobody works: nothing lost, nothing left."""
        for path in [self.logs / "results.jsonl", *folder.glob("runs/*/events.jsonl")]:
            now = path.read_bytes() if path.exists() else b""
            before = self.files.get(path, b"")
            acknowledged = before[: before.rfind(b"\n") + 1]
            if not now.startswith(acknowledged):
                self.broken.append(f"{path.name} lost what it had acknowledged")
            self.files[path] = now

    def check_engines(self, folder: Path, lanes: int) -> None:
        """No run has two engines, and no more are at work than there are lanes.

        Ranks outlive a killed engine for a moment, so what is only there for that is no fault.
        """
        deadline = time.monotonic() + ORPHAN_SECONDS
        while len(set(engines := self._engines(folder))) < len(engines) or len(engines) > max(
            1, lanes
        ):
            if time.monotonic() > deadline:
                self.broken.append(f"{folder.name}: engines {sorted(engines)}")
                return
            time.sleep(0.05)

    @staticmethod
    def _engines(folder: Path) -> list[str]:
        """Run folder of each engine of a suite, without the ranks that it started."""
        runs = {}
        for pid in tree.numeric_entries("/proc"):
            with contextlib.suppress(OSError):
                words = tree.read_file(f"/proc/{pid}/cmdline").split(b"\0")
                if b"engines.child" in words and str(folder).encode() in words[-2]:
                    runs[pid] = words[-2].decode()
        processes = {pid: tree.read_process(pid) for pid in runs}
        return [
            run
            for pid, run in runs.items()
            if (process := processes[pid]) and not process.dead and process.parent not in runs
        ]

    def check_orphans(self) -> None:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while orphans := {pid for token in self.tokens for pid in tree.processes_with_token(token)}:
            if time.monotonic() > deadline:
                self.counts["orphans"] += len(orphans)
                self.broken.append(f"left behind: {sorted(orphans)}")
                for pid in orphans:
                    self._kill(pid)
                return
            time.sleep(0.05)

    def go_on(self, folder: Path) -> bool:
        """Resume if nobody works any more; False when nothing is left to do."""
        if self.front is not None:
            if self.front.poll() is None:
                return True
            self.wait(lambda: not self._alive(folder), "the end of the warden")
            self.check_orphans()
        if not resume.unfinished_runs(folder):
            return False
        self.front = self.workbench("resume", folder.name, "--headless")
        self.counts["resumes"] += 1
        return True

    def _alive(self, folder: Path) -> bool:
        warden = warden_file.read_warden(folder)
        return warden is not None and warden_file.is_alive(warden)

    def finish(self, folder: Path) -> None:
        """Let it come to its end without further harm."""
        tries = 0
        while self.go_on(folder):
            self.front.wait()
            tries += 1
            if tries > 20:
                self.broken.append(f"{folder.name} does not come to its end")
                return

    def outcome(self, folder: Path) -> dict[str, object]:
        """Weights and metrics of every run, from the records and the files."""
        outcomes = {}
        for run, spec in suite.read_runs(folder):
            weights = (run / "checkpoints/last/model.safetensors").read_bytes()
            metrics = [
                record.model_dump(mode="json")["metrics"]
                for record in store.read_records(self.logs / "results.jsonl")
                if (record.identity.suite, record.identity.run_id) == (folder.name, spec.run_id)
                and record.exit.cause == "completed"
            ]
            outcomes[spec.run_id] = (hashlib.sha256(weights).hexdigest(), metrics)
        return outcomes

    def compare(self, folder: Path, expected: dict[str, object]) -> None:
        outcomes = self.outcome(folder)
        for run_id, (weights, metrics) in outcomes.items():
            sha, (expected_metrics,) = expected[run_id]
            if weights != sha:
                self.broken.append(f"{folder.name} {run_id}: other weights")
            if len(metrics) != 1:
                self.broken.append(f"{folder.name} {run_id}: {len(metrics)} completed records")
            if any(m != expected_metrics for m in metrics):
                self.broken.append(f"{folder.name} {run_id}: a completed record with other metrics")
            self.counts["runs compared"] += 1


def bombard(soak: Soak, kills: int, seconds: float, runs: int, lanes: int = 0) -> None:
    """Suites one after the other until there were enough kills, or no time is left."""
    reference = soak.start("undisturbed", runs)
    soak.finish(reference)
    expected, began, killed, number = soak.outcome(reference), time.monotonic(), 0, 0
    while killed < kills and time.monotonic() - began < seconds:
        number += 1
        folder = soak.start(f"soak-{number}", runs, lanes)
        while killed < kills and time.monotonic() - began < seconds and soak.go_on(folder):
            victim = soak.kill(folder)
            soak.check(folder)
            soak.check_engines(folder, lanes)
            killed += victim != "nobody"
            print(f"{time.monotonic() - began:7.1f} s  {killed:3}  {victim}", flush=True)
        soak.finish(folder)
        soak.check(folder)
        soak.compare(folder, expected)
        soak.counts["suites"] += 1
    soak.counts["kills"] = killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=7200, help="start nothing new after it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--runs", type=int, default=3, help="runs of a suite; the third has 2 ranks"
    )
    parser.add_argument("--lanes", type=int, default=0, help="runs at work at once; 0: one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        soak = Soak(Path(root), options.seed)
        began = time.monotonic()
        try:
            bombard(soak, options.kills, options.seconds, options.runs, options.lanes)
        finally:
            if soak.front is not None and soak.front.poll() is None:
                soak.front.terminate()
                soak.front.wait()
            soak.check_orphans()
        summary = {"seed": options.seed, "wall_seconds": round(time.monotonic() - began)}
        print(json.dumps({**summary, **dict(soak.counts), "broken": soak.broken}))
        if soak.broken:
            print((Path(root) / "commands.log").read_text()[-4000:], file=sys.stderr)
    return 1 if soak.broken else 0


if __name__ == "__main__":
    sys.exit(main())
