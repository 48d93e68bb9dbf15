"""Overhead of supervision, measured: the same engine with and without a warden, in turn.

Blocks alternate (A/B, B/A, …) because a machine drifts. Arm A is a normal run: warden, journal,
sampling, and the GPU sampler where there is a GPU. In arm B the engine writes into a pipe that
nobody reads before its end. Both do the same steps of the synthetic engine.

Two results: the difference of step times, whose interval is as wide as the machine's noise, and the
CPU share of warden and sampler as counted by the kernel, which is more precise.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from engines import protocol
from engines.protocol import RunSpec
from workbench import paths
from workbench.doctor.overhead_statistics import (
    OverheadResult,
    StepBlock,
    compute_overhead,
    describe_result,
    write_result,
)
from workbench.planning import expand, plan
from workbench.processes import engine_process, tree
from workbench.processes.limits import Limits
from workbench.suites import journal, suite
from workbench.supervisor import launch
from workbench.supervisor.warden_options import WardenOptions

PAIRS: Final = 5
STEPS: Final = 100
"""A block: 5 pairs of 100 steps are 500 steps an arm, 10 s of it at 20 ms."""
STEP_SECONDS: Final = 0.020
WARMUP_STEPS: Final = 10
WAIT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1


def measure_and_print(cache_root: Path, *, as_json: bool) -> None:
    """Measure the overhead, print it, and write it to the cache, where records read it."""
    seconds = round(2 * PAIRS * ((STEPS + WARMUP_STEPS) * STEP_SECONDS + 0.8))
    print(f"workbench: measuring what watching costs, about {seconds} s", file=sys.stderr)
    cost = measure_overhead()
    path = write_result(cost, cache_root)
    if as_json:
        print(json.dumps({"name": "overhead", **asdict(cost), "file": str(path)}))
    else:
        print(describe_result(cost))
        print(f"kept in {path}")


def measure_overhead(pairs: int = PAIRS, steps: int = STEPS) -> OverheadResult:
    """Run both arms in turn, `pairs` blocks of `steps` steps each.

    Raises:
        LaunchError: a warden or an engine did not do its steps.
    """
    rounds = calibrate_rounds(STEP_SECONDS)
    watched: list[StepBlock] = []
    alone: list[StepBlock] = []
    with tempfile.TemporaryDirectory(prefix="workbench-") as name:
        folder = Path(name)
        for number in range(pairs):
            arms = [(watched, _run_watched), (alone, _run_alone)]
            for blocks, arm in arms if number % 2 == 0 else reversed(arms):
                blocks.append(arm(folder / f"{number}-{arm.__name__}", steps, rounds))
    return compute_overhead(watched, alone)


def calibrate_rounds(seconds: float) -> int:
    """Rounds of the synthetic engine that make a step of about `seconds`."""
    block = bytes(1 << 20)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        hashlib.sha256(block).digest()
        times.append(time.perf_counter() - start)
    return max(1, round(seconds / statistics.median(times)))


def _make_plan(steps: int, rounds: int) -> tuple[plan.SuitePlan, list[RunSpec]]:
    table = {
        "name": "overhead", "engine": "probe", "subsets": ["none"], "models": ["none"],
        "settings": {"steps": steps, "rounds": rounds, "warmup_steps": WARMUP_STEPS},
    }  # fmt: skip
    suite_plan = plan.parse(table, "overhead")
    return suite_plan, expand.expand(suite_plan, paths.cache_root())


def _run_watched(folder: Path, steps: int, rounds: int) -> StepBlock:
    """A block of a supervised run; the life pipe ends its warden with this process."""
    suite_folder = suite.create_suite(folder, *_make_plan(steps, rounds))
    launched = launch.start_warden(suite_folder, foreground=True, options=WardenOptions(share=True))
    samples: list[tuple[float, float]] = []
    pids = [launched.pid]
    try:
        for _ in _poll_until_timeout():
            if len(pids) == 1:
                pids += _sampler_pids(launched.pid)
            samples.append((time.time(), _cpu_seconds(pids)))
            if launched.popen.poll() is not None:
                break
    finally:
        launch.close_life_pipe(launched)
    entries = journal.Tail(suite.read_runs(suite_folder)[0][0] / "events.jsonl").read_all()
    timed = [e for e in entries if isinstance(e.msg, protocol.Step) and not e.msg.warmup]
    durations = _step_durations([entry.msg for entry in timed], steps)
    inside = [(at, cpu) for at, cpu in samples if timed[0].wall <= at <= timed[-1].wall]
    if len(inside) < 2:  # too short for two samples of the warden: use its start and end too
        inside = samples
    (first, before), (last, after) = inside[0], inside[-1]
    return StepBlock(durations, after - before, last - first)


def _step_durations(timed: Sequence[Any], steps: int) -> tuple[float, ...]:
    durations = tuple(s for message in timed for s in message.step_seconds)
    if len(durations) != steps:
        raise launch.LaunchError(f"the probe did {len(durations)} of {steps} steps")
    return durations


def _run_alone(folder: Path, steps: int, rounds: int) -> StepBlock:
    """A block of the same engine without a warden; its pipe is read after its end."""
    suite_folder = suite.create_suite(folder, *_make_plan(steps, rounds))
    run_dir, spec = suite.read_runs(suite_folder)[0]
    reading, writing = os.pipe()
    token = f"overhead-{os.getpid()}"
    variables = engine_process.engine_environment(os.environ, spec, token, 1, {})
    engine = engine_process.start_engine(
        engine_process.ENGINE_COMMAND, run_dir, variables, reading, Limits().pipe_bytes
    )  # fmt: skip
    try:
        for _ in _poll_until_timeout():
            if engine.poll() is not None:
                break
        messages = _drain_messages(engine.event_fd)
    finally:
        os.close(writing)
        engine.close()
        tree.kill_processes_with_token(token, Limits().kill_seconds)
        os.close(reading)
    timed = [m for m in messages if isinstance(m, protocol.Step) and not m.warmup]
    return StepBlock(_step_durations(timed, steps))


def _drain_messages(descriptor: int) -> list[Any]:
    data = b""
    while True:
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            break
        if not chunk:
            break
        data += chunk
    return [protocol.decode(line) for line in data.splitlines()]


def _poll_until_timeout() -> Iterator[None]:
    """Yield ten times a second, in both arms alike.

    Raises:
        LaunchError: `WAIT_SECONDS` have passed.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_SECONDS)
    raise launch.LaunchError(f"an engine of a second's work was not over after {WAIT_SECONDS:g} s")


def _sampler_pids(warden: int) -> list[int]:
    """Process ids of the warden's GPU sampler; empty where there is none."""
    children = tree.child_pids(warden)
    return [pid for pid in children if b"telemetry.sampler" in _read_file(f"/proc/{pid}/cmdline")]


def _cpu_seconds(pids: Sequence[int]) -> float:
    """CPU seconds of these processes so far, from schedstat, else from user and system ticks."""
    total = 0.0
    for pid in pids:
        if exact := _read_file(f"/proc/{pid}/schedstat").split():
            total += int(exact[0]) / 1e9
        elif fields := _read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split():
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _read_file(path: str) -> bytes:
    try:
        return tree.read_file(path)
    except OSError:
        return b""
