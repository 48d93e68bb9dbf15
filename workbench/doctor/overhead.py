"""What watching costs, measured: the same engine with and without a warden, in turn.

A/B/A/B in blocks, since a machine drifts; the first of a pair changes each time. Arm A is a run as
it always is: warden, journal, sampling, and the sampler where there is a GPU. In arm B the engine
writes into a pipe that nobody reads. Both do the same steps of the probe engine.

Two figures come of it. The difference of step times has an interval that is as wide as the noise of
the machine; the CPU share of warden and sampler, counted by the kernel, is the sharper one.
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
from workbench.doctor.overhead_statistics import Block, Cost, cost_of, keep, sentence
from workbench.planning import plan
from workbench.processes import engine_process, tree
from workbench.processes.limits import Limits
from workbench.suites import journal, suite
from workbench.supervisor import launch

PAIRS: Final = 5
STEPS: Final = 100
"""A block: 5 pairs of 100 steps are 500 steps an arm, 10 s of it at 20 ms."""
STEP_SECONDS: Final = 0.020
WARMUP_STEPS: Final = 10
WAIT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1


def run(cache_root: Path, *, as_json: bool) -> None:
    """Measure, print, and keep the result where a record can cite it."""
    seconds = round(2 * PAIRS * ((STEPS + WARMUP_STEPS) * STEP_SECONDS + 0.8))
    print(f"workbench: measuring what watching costs, about {seconds} s", file=sys.stderr)
    cost = measure()
    place = keep(cost, cache_root)
    if as_json:
        print(json.dumps({"name": "overhead", **asdict(cost), "file": str(place)}))
    else:
        print(sentence(cost))
        print(f"kept in {place}")


def measure(pairs: int = PAIRS, steps: int = STEPS) -> Cost:
    """Run both arms in turn.

    Raises:
        LaunchError: a warden or an engine did not do its steps.
    """
    rounds = rounds_for(STEP_SECONDS)
    watched: list[Block] = []
    alone: list[Block] = []
    with tempfile.TemporaryDirectory(prefix="workbench-") as name:
        folder = Path(name)
        for number in range(pairs):
            arms = [(watched, _watched), (alone, _alone)]
            for blocks, arm in arms if number % 2 == 0 else reversed(arms):
                blocks.append(arm(folder / f"{number}-{arm.__name__}", steps, rounds))
    return cost_of(watched, alone)


def rounds_for(seconds: float) -> int:
    """How many rounds of the probe make a step of about this length."""
    block = bytes(1 << 20)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        hashlib.sha256(block).digest()
        times.append(time.perf_counter() - start)
    return max(1, round(seconds / statistics.median(times)))


def _plan(steps: int, rounds: int) -> tuple[plan.SuitePlan, list[RunSpec]]:
    table = {
        "name": "overhead", "engine": "probe", "subsets": ["none"], "models": ["none"],
        "settings": {"steps": steps, "rounds": rounds, "warmup_steps": WARMUP_STEPS},
    }  # fmt: skip
    asked = plan.parse(table, "overhead")
    return asked, plan.expand(asked, paths.cache_root())


def _watched(folder: Path, steps: int, rounds: int) -> Block:
    """A suite of one run, with its warden; the life pipe takes it down with us."""
    made = suite.create(folder, *_plan(steps, rounds))
    launched = launch.start_warden(made, foreground=True, share=True)
    used: list[tuple[float, float]] = []
    watch = [launched.pid]
    try:
        for _ in _patiently():
            if len(watch) == 1:
                watch += _sampler(launched.pid)
            used.append((time.time(), _cpu_seconds(watch)))
            if launched.popen.poll() is not None:
                break
    finally:
        launch.hang_up(launched)
    entries = journal.Tail(suite.runs(made)[0][0] / "events.jsonl").read_all()
    timed = [e for e in entries if isinstance(e.msg, protocol.Step) and not e.msg.warmup]
    durations = _durations([entry.msg for entry in timed], steps)
    inside = [(at, cpu) for at, cpu in used if timed[0].wall <= at <= timed[-1].wall]
    if len(inside) < 2:  # too short for two beats of the warden: its start and end count too
        inside = used
    (first, before), (last, after) = inside[0], inside[-1]
    return Block(durations, after - before, last - first)


def _durations(timed: Sequence[Any], steps: int) -> tuple[float, ...]:
    found = tuple(s for message in timed for s in message.step_seconds)
    if len(found) != steps:
        raise launch.LaunchError(f"the probe did {len(found)} of {steps} steps")
    return found


def _alone(folder: Path, steps: int, rounds: int) -> Block:
    """The same engine, started in the same way, whose pipe is read after its end."""
    made = suite.create(folder, *_plan(steps, rounds))
    run_dir, spec = suite.runs(made)[0]
    reading, writing = os.pipe()
    token = f"overhead-{os.getpid()}"
    variables = engine_process.environment(os.environ, spec, token, 1, {})
    engine = engine_process.start(
        engine_process.ENGINE_COMMAND, run_dir, variables, reading, Limits().pipe_bytes
    )  # fmt: skip
    try:
        for _ in _patiently():
            if engine.poll() is not None:
                break
        said = _drain(engine.event_fd)
    finally:
        os.close(writing)
        engine.close()
        tree.kill_carriers(token, Limits().kill_seconds)
        os.close(reading)
    timed = [m for m in said if isinstance(m, protocol.Step) and not m.warmup]
    return Block(_durations(timed, steps))


def _drain(descriptor: int) -> list[Any]:
    data = b""
    while True:
        try:
            piece = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            break
        if not piece:
            break
        data += piece
    return [protocol.decode(line) for line in data.splitlines()]


def _patiently() -> Iterator[None]:
    """Ten looks a second, in both arms alike."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_SECONDS)
    raise launch.LaunchError(f"an engine of a second's work was not over after {WAIT_SECONDS:g} s")


def _sampler(warden: int) -> list[int]:
    """The warden's sampler, where there is one."""
    found = tree.children(warden)
    return [pid for pid in found if b"telemetry.sampler" in _read(f"/proc/{pid}/cmdline")]


def _cpu_seconds(pids: Sequence[int]) -> float:
    """CPU of these processes so far: user and system ticks, finer where the scheduler tells."""
    total = 0.0
    for pid in pids:
        if exact := _read(f"/proc/{pid}/schedstat").split():
            total += int(exact[0]) / 1e9
        elif fields := _read(f"/proc/{pid}/stat").rpartition(b")")[2].split():
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _read(path: str) -> bytes:
    try:
        return tree.read(path)
    except OSError:
        return b""
