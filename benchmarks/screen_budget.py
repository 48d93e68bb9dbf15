"""What an open screen costs, and how fast it answers, through a real pseudo-terminal of 120 x 36.

Idle on each screen and Live over a suite at work: bytes written a second, CPU, resident memory. Key
to paint: from the write of a key to the first bytes of the answer, in Results with 10,000 records
and in Live over a run whose journal grows by 100,000 events a second. Then 1,000 switches of the
screen: open files and threads before and after. Goals are printed beside the figures.

    python benchmarks/screen_budget.py [--seconds 30] [--keys 200] [--switches 1000] [--only PART]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
EVENTS_PER_SECOND = 100_000
RECORDS = 10_000
SETTLED_SECONDS = 8.0
"""Without a paint for so long, all is loaded, on a busy machine too."""
IDLE_GOAL = "goal 300 B/s, 1 %, 80 MiB"
PARTS = ("idle", "live", "events", "records", "switches")
DOWN, UP = b"\x1b[B", b"\x1b[A"


@dataclass
class Screen:
    """The app in a pseudo-terminal."""

    pid: int
    terminal: int

    @classmethod
    def open(cls, log_root: Path) -> Screen:
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(
                TERM="xterm-256color", COLUMNS="120", LINES="36", PYTHONPATH=str(ROOT)
            )
            os.execv(
                sys.executable, [sys.executable, "-m", "workbench", "--log-root", str(log_root)]
            )
        return cls(pid, terminal)

    def drain(self, seconds: float) -> int:
        """Read for some seconds; returns the number of bytes."""
        count, end = 0, time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            if select.select([self.terminal], [], [], remaining)[0]:
                count += len(os.read(self.terminal, 65_536))
        return count

    def settle(self, quiet: float = 0.3, limit: float = 30.0) -> None:
        """Read until nothing was painted for `quiet` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self.drain(quiet):
            pass

    def answer(self, key: bytes) -> float:
        """Seconds from a key to the first bytes of its answer."""
        began = time.perf_counter()
        os.write(self.terminal, key)
        if not select.select([self.terminal], [], [], 10.0)[0]:
            raise SystemExit(f"no answer to {key!r} within 10 s")
        return time.perf_counter() - began

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory(self) -> float:
        """Resident MiB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / 2**20

    @property
    def resources(self) -> tuple[int, int]:
        """Open files and threads."""
        process = Path(f"/proc/{self.pid}")
        files, threads = (len(list((process / name).iterdir())) for name in ("fd", "task"))
        return files, threads

    def close(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(OSError):  # the screen has ended
            self.drain(3.0)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def print_cost(name: str, screen: Screen, seconds: float, goal: str) -> None:
    """Bytes a second, CPU share and memory over some seconds."""
    before, began = screen.cpu_seconds(), time.monotonic()
    count = screen.drain(seconds)
    passed = time.monotonic() - began
    share = (screen.cpu_seconds() - before) / passed
    print(
        f"{name:<34} {count / passed:7.0f} B/s  {share:6.2%} CPU  {screen.memory:5.0f} MiB   {goal}"
    )


def print_latency(name: str, times: list[float]) -> None:
    """Median, 95th percentile and maximum."""
    ordered = sorted(times)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    print(
        f"{name:<34} median {statistics.median(times) * 1e3:5.1f} ms  p95 {p95 * 1e3:5.1f} ms  "
        f"max {ordered[-1] * 1e3:5.0f} ms   goal p95 < 60 ms"
    )


def press_keys(screen: Screen, keys: int, rows: int) -> list[float]:
    """Answer times of `keys` moves of a cursor over `rows` rows and back, about ten a second.

    A key at the end of a list moves nothing, and would be timed up to the next paint.
    """
    times = []
    for number in range(keys):
        screen.settle(0.05, 0.2)
        times.append(screen.answer(DOWN if number // (rows - 1) % 2 == 0 else UP))
    return times


def write_events(path: Path, sequence: int, t: float, stop) -> None:
    """Append `EVENTS_PER_SECOND` steps a second to a journal, until `stop`."""
    from engines import messages, protocol

    step = messages.Step(
        t=t, step=1_000_000, count=1, samples=64, seconds=0.1, loss=1.5, lr=1e-4,
        metrics={"r@1": 0.5},
    )  # fmt: skip
    line = protocol.encode(protocol.Entry(seq=10**9, wall=t, src="engine", msg=step)).decode()
    head, tail = line.split("1000000000", 1)
    batch, began, written = EVENTS_PER_SECOND // 20, time.monotonic(), 0
    with path.open("ab", buffering=0) as file:
        while not stop.is_set():
            lines = (f"{head}{sequence + written + n}{tail}" for n in range(batch))
            file.write("".join(lines).encode())
            written += batch
            time.sleep(max(0.0, began + written / EVENTS_PER_SECOND - time.monotonic()))
    print(f"   written: {written / (time.monotonic() - began):,.0f} events/s")


def measure_busy_journal(folder: Path, keys: int) -> None:
    """Key to paint in Live over a run whose journal grows fast."""
    from tests.workbench.tui import sample_suites

    suite = sample_suites.make_suite(
        folder, [("emoji_train", "clip-nano"), ("emoji_train", "effnet-minilm")], state="running"
    )
    journal = sample_suites.begin(suite, 1)
    t = sample_suites.train(journal, 400, 2_000_000)
    stop = multiprocessing.Event()
    writer = multiprocessing.Process(target=write_events, args=(journal.path, journal.seq, t, stop))
    screen = Screen.open(folder)
    screen.drain(2.0)
    screen.settle(SETTLED_SECONDS)
    os.write(screen.terminal, b"2")
    screen.settle(2.0)
    writer.start()
    try:
        screen.drain(3.0)
        times = press_keys(screen, keys, rows=2)
    finally:
        stop.set()
        writer.join()
        screen.close()
    print_latency(f"Live, {EVENTS_PER_SECOND:,} events/s", times)


def measure_suite_at_work(folder: Path, seconds: float) -> None:
    """Cost of Live over a suite at work: the stdlib engine with ten events a second."""
    from workbench.suites import control, suite, warden_file

    os.environ.update(WORKBENCH_LOCKS=str(folder))
    command = [sys.executable, "-m", "workbench", "run", "-e", "probe", "-d", "none", "-m", "none"]
    for setting in (f"steps={int(20 * (seconds + 30))}", "delay_seconds=0.099", "rounds=1"):
        command += ["--set", setting]
    environment = {**os.environ, "WORKBENCH_LOG_ROOT": str(folder)}
    subprocess.run([*command, "--detach"], env=environment, check=True, stdout=subprocess.DEVNULL)
    suite_folder = suite.find_suite(folder, None)
    screen = Screen.open(folder)
    screen.drain(2.0)
    screen.settle(SETTLED_SECONDS)
    os.write(screen.terminal, b"2")
    screen.drain(10.0)
    print_cost("Live of a suite at work", screen, seconds, "goal 3,000 B/s, 5 %")
    screen.close()
    control.send_command(suite_folder, control.Command(do="stop"))
    warden = warden_file.read_warden(suite_folder)
    while warden is not None and warden_file.is_alive(warden):
        time.sleep(0.1)


def measure_idle(folder: Path, seconds: float) -> None:
    """Cost of Plan when nothing happens."""
    screen = Screen.open(folder)
    screen.drain(2.0)
    screen.settle(SETTLED_SECONDS)
    print_cost("idle, Plan, empty log root", screen, seconds, IDLE_GOAL)
    screen.close()


def measure_records(folder: Path, seconds: float, keys: int) -> None:
    """Idle cost and key to paint in Results."""
    from tests.workbench.tui import sample_suites

    sample_suites.write_records(folder, RECORDS)
    screen = Screen.open(folder)
    screen.drain(2.0)
    screen.settle(SETTLED_SECONDS)
    os.write(screen.terminal, b"3")
    screen.settle(SETTLED_SECONDS, 60.0)
    print_cost(f"idle, Results, {RECORDS:,} records", screen, seconds, IDLE_GOAL)
    print_latency(f"Results, {RECORDS:,} records", press_keys(screen, keys, rows=11))
    screen.close()


def measure_switches(folder: Path, switches: int) -> None:
    """What 1,000 switches of the screen leave."""
    from tests.workbench.tui import sample_suites

    sample_suites.busy_root(folder)
    sample_suites.write_records(folder, 100)
    screen = Screen.open(folder)
    screen.drain(2.0)
    screen.settle(SETTLED_SECONDS)
    for number in range(12):
        os.write(screen.terminal, b"1234"[number % 4 : number % 4 + 1])
        screen.settle(0.3, 3.0)
    files, threads = screen.resources
    times = []
    for number in range(switches):
        times.append(screen.answer(b"1234"[number % 4 : number % 4 + 1]))
        screen.settle(0.02, 0.5)
    screen.settle(1.0)
    after = screen.resources
    print(
        f"{switches:,} switches: files {files} -> {after[0]}, threads {threads} -> {after[1]}, "
        f"{screen.memory:.0f} MiB   goal: none more"
    )
    print_latency("a switch of the screen", times)
    screen.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(
            WORKBENCH_CACHE=str(folder / "cache"), WORKBENCH_CONFIG=str(folder / "config")
        )
        for part in ("few", "work", "busy", "many"):
            (folder / part).mkdir()
        measures = {
            "idle": lambda: measure_idle(folder / "few", options.seconds),
            "live": lambda: measure_suite_at_work(folder / "work", options.seconds),
            "events": lambda: measure_busy_journal(folder / "busy", options.keys),
            "records": lambda: measure_records(folder / "many", options.seconds, options.keys),
            "switches": lambda: measure_switches(folder / "few", options.switches),
        }
        for part, measure in measures.items():
            if options.only in (part, None):
                measure()


if __name__ == "__main__":
    main()
