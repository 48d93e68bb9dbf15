"""Time from process start to the first painted frame of the screen, through a real pseudo-terminal.

The clock starts before `fork` and stops when the text of the tab bar has been read from the
terminal: the moment a person sees it. Then: when the catalogs are filled in, and how long Results
takes to show rows of a short and of a long file. Medians of interleaved rounds after one that warms
the page cache; a bare interpreter and a bare `import textual.app` set the scale.

    python benchmarks/tui_start.py [--rounds 9] [--records 10000]
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRAME = b"Results"
"""In the tab bar of every screen's first frame."""
FILLED = b"clip-nano"
"""A model of the catalog: the lists are there."""
ROWS = b"completed"
"""In the first rows of the table of results."""
ESCAPES = re.compile(rb"\x1b\[[0-9;?>=]*[a-zA-Z]")
LIMIT_SECONDS = 15.0


def first_frame(command: list[str], needles: list[bytes], key: bytes = b"") -> list[float]:
    """Seconds from before the fork until each needle was read; `key` is pressed before the last."""
    began = time.perf_counter()
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="120", LINES="36", PYTHONPATH=str(ROOT))
        os.execv(command[0], command)
    output, times = b"", []
    try:
        while len(times) < len(needles):
            if time.perf_counter() - began > LIMIT_SECONDS:
                raise SystemExit(f"{needles[len(times)]!r} was not painted in {LIMIT_SECONDS} s")
            if select.select([master], [], [], 0.1)[0]:
                output += os.read(master, 65_536)
            if needles[len(times)] in ESCAPES.sub(b"", output):
                times.append(time.perf_counter() - began)
                if key and len(times) == len(needles) - 1:
                    os.write(master, key)
                    output = b""
    finally:
        os.kill(pid, signal.SIGTERM)
        drain(master)
        os.waitpid(pid, 0)
        os.close(master)
    return times


def drain(master: int) -> None:
    """Read what still comes, so that the other side can end."""
    while select.select([master], [], [], 2.0)[0]:
        try:
            if not os.read(master, 65_536):
                return
        except OSError:
            return


def plain(command: list[str]) -> float:
    """Seconds of a whole process without a screen."""
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT)
    return time.perf_counter() - began


def main() -> None:
    """Interleaved rounds, medians and extremes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--records", type=int, default=10_000)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.workbench.tui import sample_suites

    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        sample_suites.write_records(few, 100)
        sample_suites.write_records(many, options.records)
        start = [sys.executable, "-m", "workbench", "--log-root"]
        few_start, many_start = [*start, str(few)], [*start, str(many)]
        all_read = f"{options.records:,} runs".encode()
        os.environ["WORKBENCH_LOG_ROOT"] = str(few)
        measures = {
            "python -c pass": lambda: [plain([sys.executable, "-c", "pass"])],
            "import textual.app": lambda: [plain([sys.executable, "-c", "import textual.app"])],
            "first frame": lambda: first_frame(start[:3], [FRAME]),
            "first frame with --log-root": lambda: first_frame(few_start, [FRAME]),
            "catalogs filled in": lambda: first_frame(few_start, [FRAME, FILLED])[1:],
            "100 records: first rows": lambda: opened(few_start, ROWS),
            f"{options.records:,} records: first rows": lambda: opened(many_start, ROWS),
            f"{options.records:,} records: all read": lambda: opened(many_start, all_read),
        }
        times: dict[str, list[float]] = {name: [] for name in measures}
        for round_ in range(options.rounds + 1):
            for name, measure in measures.items():
                seconds = measure()[0]
                if round_:
                    times[name].append(seconds)
    for name, values in times.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<36} {middle * 1e3:7.0f} ms   {low * 1e3:6.0f} to {high * 1e3:.0f}")


def opened(command: list[str], needle: bytes) -> list[float]:
    """Seconds from pressing `3`, with everything loaded, until the needle is painted."""
    _, filled, painted = first_frame(command, [FRAME, FILLED, needle], b"3")
    return [painted - filled]


if __name__ == "__main__":
    main()
