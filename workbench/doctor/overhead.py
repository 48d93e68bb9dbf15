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
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engines import protocol
from engines.protocol import RunSpec
from workbench import journal, launch, paths, plan, process, suite, tree
from workbench.limits import Limits
from workbench.telemetry import environment

PAIRS: Final = 5
STEPS: Final = 100
"""A block: 5 pairs of 100 steps are 500 steps an arm, 10 s of it at 20 ms."""
STEP_SECONDS: Final = 0.020
WARMUP_STEPS: Final = 10
RESAMPLES: Final = 2000
BLOCK_STEPS: Final = 10
"""Neighbouring steps are not independent: they are drawn again in runs of ten."""
WAIT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
LIMIT_SHARE: Final = 0.005
"""What watching may cost at most."""


@dataclass(frozen=True, slots=True)
class Block:
    """One engine's timed steps; of a watched one also what its warden used meanwhile."""

    steps: tuple[float, ...]
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """The result, as it is kept in `overhead.json` of the cache."""

    difference_seconds: float
    """Median step watched - median step alone."""
    low: float
    high: float
    step_seconds: float
    steps_per_arm: int
    cpu_share: float
    """CPU seconds of warden and sampler / wall seconds of the watched steps."""
    cpu: str
    gpus: int
    version: str
    measured_wall: float

    @property
    def share(self) -> float:
        """The difference as a share of a step."""
        return self.difference_seconds / self.step_seconds


def run(cache_root: Path, *, as_json: bool) -> None:
    """Measure, print, and keep the result where a record can cite it."""
    seconds = round(2 * PAIRS * ((STEPS + WARMUP_STEPS) * STEP_SECONDS + 0.8))
    print(f"workbench: measuring what watching costs, about {seconds} s", file=sys.stderr)
    cost = measure()
    kept = keep(cost, cache_root)
    if as_json:
        print(json.dumps({"name": "overhead", **asdict(cost), "file": str(kept)}))
    else:
        print(sentence(cost))
        print(f"kept in {kept}")


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


def cost_of(watched: Sequence[Block], alone: Sequence[Block], seed: int = 0) -> Cost:
    """Median difference with its 95 % bootstrap interval (over pairs, and runs of ten steps)."""
    pairs = list(zip(watched, alone, strict=True))
    low, high = _interval(pairs, random.Random(seed))
    return Cost(
        difference_seconds=_difference(pairs),
        low=low,
        high=high,
        step_seconds=statistics.median(s for block in alone for s in block.steps),
        steps_per_arm=sum(len(block.steps) for block in alone),
        cpu_share=sum(b.cpu_seconds for b in watched) / sum(b.wall_seconds for b in watched),
        cpu=environment.cpu_name(),
        gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
        version=environment.version("workbench-mm"),
        measured_wall=time.time(),
    )


def _difference(pairs: Sequence[tuple[Block, Block]]) -> float:
    """Median over pairs of (median watched - median alone): what drifts is in both of a pair."""
    return statistics.median(
        statistics.median(one.steps) - statistics.median(two.steps) for one, two in pairs
    )


def _interval(pairs: Sequence[tuple[Block, Block]], chance: random.Random) -> tuple[float, float]:
    drawn = []
    for _ in range(RESAMPLES):
        again = [chance.choice(pairs) for _ in pairs]
        drawn.append(_difference([(_again(a, chance), _again(b, chance)) for a, b in again]))
    drawn.sort()
    return drawn[math.floor(0.025 * RESAMPLES)], drawn[math.ceil(0.975 * RESAMPLES) - 1]


def _again(block: Block, chance: random.Random) -> Block:
    steps: list[float] = []
    length = min(BLOCK_STEPS, len(block.steps))
    while len(steps) < len(block.steps):
        start = chance.randrange(len(block.steps) - length + 1)
        steps += block.steps[start : start + length]
    return Block(tuple(steps[: len(block.steps)]))


def sentence(cost: Cost) -> str:
    """The result for a person."""
    low, high = (value / cost.step_seconds for value in (cost.low, cost.high))
    verdict = "within" if cost.cpu_share <= LIMIT_SHARE else "ABOVE"
    return (
        f"watching costs {cost.cpu_share:.2%} of a core ({verdict} the promised "
        f"{LIMIT_SHARE:.1%}); steps of {cost.step_seconds * 1e3:.1f} ms take {cost.share:+.2%} "
        f"[{low:+.2%}, {high:+.2%}] longer, {cost.steps_per_arm} steps with and without, in turn"
    )


def keep(cost: Cost, cache_root: Path) -> Path:
    """Write `overhead.json`, whole or not at all."""
    paths.make_private(cache_root)
    path, fresh = cache_root / "overhead.json", cache_root / f".overhead.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(cost), indent=1) + "\n")
    fresh.replace(path)
    return path


def kept(cache_root: Path) -> Cost | None:
    """The last result on this machine, or None."""
    try:
        return Cost(**json.loads((cache_root / "overhead.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


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
    if len(inside) < 2:
        return Block(durations)
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
    variables = process.environment(os.environ, spec, token, 1, {})
    engine = process.start(
        process.ENGINE_COMMAND, run_dir, variables, reading, Limits().pipe_bytes
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
    """Twenty looks a second, in both arms alike."""
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
