"""Error of cost forecasts: trials of a cost probe and then the full epoch of one plan.

    python benchmarks/forecast.py                     # ten trials, some eight minutes on two cores
    python benchmarks/forecast.py --trials 3 --max-uncertainty 2%
    python benchmarks/forecast.py --busy 0.5          # a neighbour that works half of the time
    python benchmarks/forecast.py --log-root DIR      # with the history of earlier trials

Each trial starts both through the real command line, in processes of their own, and reads their
records. All share a log root, so that from the fourth trial on the interval knows what the earlier
forecasts missed. The promise: the measured epoch lies within 5 % of the forecast, and inside its
interval, in at least nine of ten trials. Exit code 0: kept; 1: not kept; 2: a run failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from results.records import cost_forecasts
from results.records.cost_forecasts import ForecastComparison
from results.records.schema import RunRecord
from results.text import formats

WITHIN = 0.05
OF_TRIALS = 0.9
SETTINGS = ("batch=4", "epochs=1", "evaluate_on=[]", "save_model=false")
"""An epoch of 1,023 steps, some 25 s on two quiet cores; further --set come after these."""
BUSY_PERIOD_SECONDS = 4.0
"""A neighbour's work and rest together: longer than a block of steps, shorter than a probe."""


def main() -> int:
    """Run the trials, print them as they come, and judge."""
    options = arguments()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, plan: {' '.join(plan(options))}")
    header = ("trial", "steps", "forecast", "±", "measured", "error", "inside", "run error", "load")
    print("  ".join(f"{name:>9}" for name in header), flush=True)
    comparisons = []
    with tempfile.TemporaryDirectory() as folder, neighbour(options.busy):
        for number in range(1, options.trials + 1):
            pair = trial(options, options.log_root or Path(folder))
            if pair is None:
                return 2
            comparisons.append(pair[0])
            print(line(number, *pair), flush=True)
    return judge(comparisons)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="timed steps of the probe")
    parser.add_argument("--max-uncertainty", help="end the probe when it is this sure, 2%% say")
    parser.add_argument("--subset", default="emoji_train")
    parser.add_argument("--model", default="clip-nano")
    parser.add_argument(
        "--set", action="append", dest="settings", metavar="KEY=VALUE", default=list(SETTINGS)
    )
    parser.add_argument("--busy", type=float, default=0.0, help="share of time a neighbour works")
    parser.add_argument("--log-root", type=Path, help="keep the records; learn from earlier ones")
    return parser.parse_args()


def plan(options: argparse.Namespace) -> list[str]:
    settings = [word for setting in options.settings for word in ("--set", setting)]
    return ["-d", options.subset, "-m", options.model, *settings]


def trial(
    options: argparse.Namespace, log_root: Path
) -> tuple[ForecastComparison, ForecastComparison | None] | None:
    """A probe, then the epoch; the comparisons of epoch and run."""
    limit = ["--max-uncertainty", options.max_uncertainty] if options.max_uncertainty else []
    probe = run(options, log_root, ["--cost-probe", str(options.steps), *limit])
    whole = run(options, log_root, [])
    if probe is None or whole is None:
        return None
    pairs = {c.scope: c for c in cost_forecasts.compare_with_forecast(whole, [probe])}
    if "epoch" not in pairs:
        print("the two runs cannot be compared: was the code changed meanwhile?", file=sys.stderr)
        return None
    return pairs["epoch"], pairs.get("run")


def run(options: argparse.Namespace, log_root: Path, more: list[str]) -> RunRecord | None:
    """One suite of one run in the foreground; its record, None when it did not complete."""
    command = [sys.executable, "-m", "workbench", "run", *plan(options), *more]
    command += ["--json", "--log-root", str(log_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for row in map(json.loads, done.stdout.splitlines()):
        if row.pop("kind") == "record" and done.returncode == 0:
            return RunRecord.model_validate(row)
    print(done.stderr[-2000:], file=sys.stderr)
    return None


def line(number: int, epoch: ForecastComparison, whole: ForecastComparison | None) -> str:
    forecast = epoch.source.forecast
    share = cost_forecasts.relative_half_width(epoch.forecast)
    cells = (
        str(number),
        str(forecast.steps if forecast else 0),
        formats.duration(epoch.forecast.value or 0.0),
        "none" if share is None else f"{share:.1%}",
        formats.duration(epoch.measured),
        f"{epoch.error:+.1%}",
        "yes" if epoch.covered else "NO",
        "" if whole is None else f"{whole.error:+.1%}",
        f"{os.getloadavg()[0]:.1f}",
    )
    return "  ".join(f"{cell:>9}" for cell in cells)


def judge(comparisons: list[ForecastComparison]) -> int:
    near = sum(abs(c.error) <= WITHIN for c in comparisons)
    inside = sum(bool(c.covered) for c in comparisons)
    kept = min(near, inside) >= OF_TRIALS * len(comparisons)
    print(
        f"within {WITHIN:.0%}: {near} of {len(comparisons)}; inside the interval: {inside} of "
        f"{len(comparisons)}; promise {'kept' if kept else 'NOT kept'}"
    )
    return 0 if kept else 1


@contextmanager
def neighbour(share: float) -> Iterator[None]:
    """A process that works for this share of the time, at uneven intervals, while we measure."""
    if not share:
        yield
        return
    other = multiprocessing.get_context("spawn").Process(target=disturb, args=(share,), daemon=True)
    other.start()
    try:
        yield
    finally:
        other.terminate()
        other.join()


def disturb(share: float) -> None:
    import random

    draw = random.Random(0)
    while True:
        period = draw.expovariate(1 / BUSY_PERIOD_SECONDS)
        end = time.perf_counter() + share * period
        while time.perf_counter() < end:
            pass
        time.sleep((1 - share) * period)


if __name__ == "__main__":
    sys.exit(main())
